"""Comparisons with one model behind an OpenAI-compatible endpoint: plain RAG, all documents in the prompt, and a ReAct
loop.

All three receive the text of every document and table of a world, the same instructions and the same limits. RAG and
ReAct search with `orchestra.tools.search`, as Orchestra does.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.requests.systems import Answer
from bench.requests.worlds import Request, World, text_of
from orchestra.schema.builtin_models import Document
from orchestra.text.arithmetic import ArithmeticParseError, evaluate
from orchestra.tools.search import search

INSTRUCTIONS = (
    "You answer requests of an office from its documents and tables. Use only what they say. Prefer the documents that "
    "are in force to replaced ones. Compute carefully. Answer in the language of the request, as briefly as possible, "
    "without explanations. If the documents do not have the answer, write: The documents do not say. You can only "
    "read: if you are asked to send, order, book or call, write: I cannot do that."
)
TOOLS = """You work in turns. In each turn, write one line with a tool and stop:
search: WORDS             the passages of the documents that have these words
open: FILE                the text of a document or table
sql: QUERY                an SQLite query over the tables
calculate: EXPRESSION     such as (1200 - 900) / 900 * 100
answer: TEXT              your answer to the request; it ends the work
Before the line you may write one short thought. The result of the tool follows in the next turn."""
PASSAGES = 5
TURNS = 8
MAX_OBSERVATION = 3_000
_ACTION = re.compile(
    r"^\W*(?P<tool>search|open|sql|calculate|answer)\W*?:\s*(?P<text>.*)", re.IGNORECASE | re.MULTILINE
)


@dataclass(frozen=True)
class Model:
    """A model behind an endpoint such as `http://127.0.0.1:8000/v1`."""

    endpoint: str
    name: str
    key: str = ""
    max_tokens: int = 300
    temperature: float = 0.0

    async def write(self, messages: Sequence[Mapping[str, str]], stop: Sequence[str] = ()) -> tuple[str, int, int]:
        """Returns the model's text, the tokens of the prompt and of the text. Raises `ModelError`."""
        body = {
            "model": self.name,
            "messages": list(messages),
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            **({"stop": list(stop)} if stop else {}),
        }
        found = await asyncio.to_thread(self._post, body)
        usage = found.get("usage") or {}
        text = found["choices"][0]["message"]["content"] or ""
        return text, int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0))

    def _post(self, body: Mapping[str, Any]) -> Any:
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {self.key}"} if self.key else {})}
        target = f"{self.endpoint.rstrip('/')}/chat/completions"
        request = urllib.request.Request(target, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=600) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise ModelError(f"{error.code}: {error.read().decode('utf-8', 'replace')[:300]}") from error
        except (OSError, ValueError) as error:
            raise ModelError(str(error)) from error


class ModelError(Exception):
    """A call of the model that failed, such as a prompt that is too long."""


@dataclass
class _Talk:
    """The calls for one request."""

    model: Model
    prompt_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    turns: list[str] = field(default_factory=list)

    async def write(self, messages: Sequence[Mapping[str, str]], stop: Sequence[str] = ()) -> str:
        text, prompt, output = await self.model.write(messages, stop)
        self.prompt_tokens += prompt
        self.output_tokens += output
        self.calls += 1
        return text

    def end(self, text: str, reason: str = "") -> Answer:
        status = "failed" if reason else "done"
        counts = (self.prompt_tokens, self.output_tokens, self.calls)
        return Answer(status, text.strip(), reason, tuple(self.turns), *counts)  # type: ignore[arg-type]


def documents_of(world: World) -> list[Document]:
    """Returns all files of a world as texts."""
    return [Document(source=file.name, text=text_of(file)) for file in world.files]


@dataclass
class Stuffed:
    """All documents and tables in the prompt."""

    model: Model

    async def answer(self, world: World, request: Request) -> Answer:
        """Answers with one call."""
        return await _answer_from(self.model, documents_of(world), request)


@dataclass
class Rag:
    """The passages that a search finds, in one prompt."""

    model: Model
    passages: int = PASSAGES

    async def answer(self, world: World, request: Request) -> Answer:
        """Answers with one call."""
        found = search.function(request.request, documents_of(world), self.passages)
        return await _answer_from(self.model, [Document(source=one.source, text=one.text) for one in found], request)


async def _answer_from(model: Model, documents: Sequence[Document], request: Request) -> Answer:
    talk = _Talk(model)
    files = "\n\n".join(f"=== {one.source} ===\n{one.text.strip()}" for one in documents)
    messages = [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": f"{files}\n\nRequest: {request.request}"},
    ]
    try:
        return talk.end(await talk.write(messages))
    except ModelError as error:
        return talk.end("", str(error))


@dataclass
class React:
    """A loop of thoughts, tools and their results."""

    model: Model
    turns: int = TURNS

    async def answer(self, world: World, request: Request) -> Answer:
        """Answers with at most `turns` calls."""
        talk = _Talk(self.model)
        documents = documents_of(world)
        database = open_tables(world)
        files = ", ".join(one.source for one in documents)
        messages = [
            {"role": "system", "content": f"{INSTRUCTIONS}\n\n{TOOLS}\n\nFiles: {files}\n{describe_tables(database)}"},
            {"role": "user", "content": f"Request: {request.request}"},
        ]
        try:
            for _ in range(self.turns):
                text = await talk.write(messages, ("\nResult:",))
                talk.turns.append(text.strip())
                action = _ACTION.search(text)
                if action is None:  # a small model may answer without the form
                    return talk.end(text)
                tool, argument = action["tool"].casefold(), action["text"].strip()
                if tool == "answer":
                    return talk.end(text[action.start("text") :])
                result = use_tool(tool, argument, documents, database)[:MAX_OBSERVATION]
                talk.turns.append(f"Result: {result}")
                messages += [
                    {"role": "assistant", "content": text[: action.end()].strip()},
                    {"role": "user", "content": f"Result: {result}"},
                ]
        except ModelError as error:
            return talk.end("", str(error))
        finally:
            database.close()
        return talk.end("", f"no answer after {self.turns} turns")


def use_tool(tool: str, argument: str, documents: Sequence[Document], database: sqlite3.Connection) -> str:
    """Returns the result of a tool as text, or its error."""
    match tool:
        case "search":
            found = search.function(argument, documents, PASSAGES)
            return "\n\n".join(f"{one.source}: {one.text}" for one in found) or "nothing found"
        case "open":
            name = argument.strip("`'\" ").rpartition("/")[2]
            return next((one.text for one in documents if one.source == name), f"there is no file {name}")
        case "sql":
            try:
                rows = database.execute(argument.strip("` ").rstrip(";")).fetchmany(50)
            except sqlite3.Error as error:
                return f"error: {error}"
            return "\n".join(" | ".join(map(str, row)) for row in rows) or "no rows"
        case _:
            try:
                return f"{float(evaluate(argument)):.10g}"
            except (ArithmeticParseError, OverflowError, ZeroDivisionError) as error:
                return f"error: {error}"


def open_tables(world: World) -> sqlite3.Connection:
    """Returns a database in memory with the tables of a world, which cannot be changed."""
    database = sqlite3.connect(":memory:")
    for file in world.files:
        if file.suffix == ".csv":
            head, *rows = csv.reader(io.StringIO(text_of(file)))
            columns = ", ".join(f'"{name}" numeric' for name in head)
            database.execute(f'create table "{file.stem}" ({columns})')
            database.executemany(f'insert into "{file.stem}" values ({", ".join("?" * len(head))})', rows)
    database.commit()
    database.execute("pragma query_only = on")
    return database


def describe_tables(database: sqlite3.Connection) -> str:
    """Returns the tables with their columns and one row each."""
    lines = []
    for (name,) in database.execute("select name from sqlite_master where type = 'table' order by name").fetchall():
        rows = database.execute(f'select * from "{name}" limit 1')
        columns = ", ".join(f'"{column[0]}"' for column in rows.description)
        lines.append(f'Table "{name}": {columns}; first row: {rows.fetchone()}')
    return "\n".join(lines)
