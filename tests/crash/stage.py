"""Workload of the crash matrix: workflows with every node kind and every effect class, and a world with its own
record.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import msgspec

from orchestra.agents.contract import Catalog, Effect
from orchestra.core.events import Usage
from orchestra.core.protocols import CallError, CallEstimate, CallRequest, CallResult, TextCallback
from orchestra.schema.strict_json import canonical, digest
from tests.engine.stage import CATALOG, NUMBER, TEXT, agent, listed, program, record, tool

T = TypeVar("T")

EVERYTHING = """
schema: orchestra/v1
name: everything
input: {text: str}
output: {a: "${joined}", b: "${grown}", c: "${chosen}", d: "${reading.answer}", e: "${rare}", f: "${sure.answer}"}
budget: {tokens: 100000, calls: 1000}
nodes:
  words: {tool: split, with: {text: "${input.text}"}}
  loud: {agent: writer, each: "${words}", as: word, concurrency: 2, with: {text: "${word}"}}
  n: {tool: count, with: {items: "${loud.values}"}}
  grown:
    loop:
      nodes: {next: {tool: grow, with: {text: "${previous}"}}}
      output: ${next}
      until: ${size(next) > 2}
      at_most: 5
  maybe: {agent: writer, when: "${n > 100}", with: {text: never}}
  chosen: {first_of: ["${maybe}", "${words[0]}"]}
  block:
    call:
      nodes: {inner: {tool: shaky, with: {text: "${words[1]}"}, retry: {attempts: 3, wait: [0.001, 0.003]}}}
      output: ${inner}
  reading:
    agent: reader
    with: {question: "Which?", context: "${input.text}"}
    checks: [quote]
    against: ${input.text}
    otherwise: [retry, abstain]
    retry: {attempts: 3, wait: [0.001, 0.002]}
  sure: {verify: "${reading}", checks: [quote], against: "${input.text}"}
  rare: {agent: broken, with: {text: "${words[0]}"}, retry: 1, fallback: "none"}
  joined: {agent: writer, with: {text: "${block} and ${string(n)}"}}
"""
EFFECTS = """
schema: orchestra/v1
name: effects
input: {text: str}
output: {a: "${saved}", b: "${paid.values}", c: "${booked}", d: "${sent}", e: "${note}", f: "${last}", g: "${settled}", h: "${wired}"}
nodes:
  words: {tool: split, with: {text: "${input.text}"}}
  saved: {tool: save, with: {text: "${words[0]}"}, retry: {attempts: 3, wait: [0.001, 0.002]}}
  paid: {tool: pay, each: "${words}", as: word, concurrency: 2, with: {text: "${word}"}, retry: {attempts: 3, wait: [0.001, 0.002]}}
  booked: {tool: book, with: {text: "${saved}"}}
  sent: {tool: send, with: {text: "${words[1]}"}, fallback: "unsent"}
  sure: {ask: "Is ${saved} right?", options: ["yes", "no"]}
  note: {tool: book, with: {text: "${sure}"}}
  last: {tool: send, with: {text: "${note}"}, fallback: "unsent"}
  settled:
    loop:
      nodes: {next: {tool: pay, with: {text: "${string(turn)}"}, retry: {attempts: 3, wait: [0.001, 0.002]}}}
      output: ${next}
      until: ${turn > 1}
      at_most: 3
  wired: {call: {nodes: {inner: {tool: send, with: {text: "${words[2]}"}, fallback: "unsent"}}, output: "${inner}"}}
"""  # noqa: E501
# This workflow ends only by cancellation: its question is never answered.
STOPPED = """
schema: orchestra/v1
name: stopped
input: {text: str}
output: ${sure}
nodes:
  words: {tool: split, with: {text: "${input.text}"}}
  paid: {tool: pay, each: "${words}", as: word, concurrency: 2, with: {text: "${word}"}, retry: {attempts: 3, wait: [0.001, 0.002]}}
  sure: {ask: "Shall it go on, after ${paid.values[0]}?", options: ["yes", "no"]}
"""  # noqa: E501
# This workflow is deleted once it has ended. It makes the same calls as `everything`, and so shares blobs and memoized
# answers with it.
BRIEF = """
schema: orchestra/v1
name: brief
input: {text: str}
output: {a: "${loud.values}", b: "${booked}"}
nodes:
  words: {tool: split, with: {text: "${input.text}"}}
  loud: {agent: writer, each: "${words}", as: word, with: {text: "${word}"}}
  booked: {tool: book, with: {text: "${words[0]}"}}
"""
TEXTS = {
    "everything": "alpha beta gamma",
    "effects": "one two three",
    "stopped": "one two",
    "brief": "alpha beta gamma",
}
CALLED = {"save": "idempotent", "pay": "keyed", "book": "transactional", "send": "once"}
"""The effect of each tool that has one."""


def _effect(name: str, effect: Effect) -> Any:
    return tool(name, record(text=TEXT), TEXT, effect)


_CATALOG = Catalog(
    agents={**CATALOG.agents, "broken": agent("broken", record(text=TEXT), TEXT)},
    tools={
        **{name: CATALOG.tools[name] for name in ("split", "grow")},
        "count": tool("count", record(items=listed(TEXT)), NUMBER),
        "shaky": _effect("shaky", "pure"),
        "save": _effect("save", "idempotent"),
        "pay": _effect("pay", "keyed"),
        "book": _effect("book", "transactional"),
        "send": _effect("send", "once"),
    },
)
GRAPHS = {"everything": EVERYTHING, "effects": EFFECTS, "stopped": STOPPED, "brief": BRIEF}


def stored(run: str, name: str) -> bytes:
    """Returns the workflow as a run stores it; each point has its own, because other points may use the same
    database.
    """
    return f"{GRAPHS[name]}# {run}\n".encode()


PROGRAMS = {name: program(text, _CATALOG) for name, text in GRAPHS.items()}


def _reading(call: CallRequest) -> Any:
    return {"answer": "beta", "quote": "beta gamma" if call.attempt > 1 else "nowhere"}


def _later(value: Callable[[CallRequest], Any]) -> Callable[[CallRequest], Any]:
    """Fails the first attempt, like a busy server."""

    def answer(call: CallRequest) -> Any:
        return value(call) if call.attempt > 1 else CallError(code="F203", reason="busy", retryable=True)

    return answer


ANSWERS: dict[str, Callable[[CallRequest], Any]] = {
    "split": lambda call: call.inputs["text"].split(),
    "count": lambda call: len(call.inputs["items"]),
    "grow": lambda call: (call.inputs["text"] or "") + "x",
    "shaky": _later(lambda call: call.inputs["text"].upper()),
    "writer": lambda call: f"<{call.inputs['text']}>",
    "reader": _reading,
    "broken": lambda call: CallError(code="F212", reason="no such model"),
    "save": _later(lambda call: f"saved {call.inputs['text']}"),
    "pay": lambda call: f"paid {call.inputs['text']}",
    "book": lambda call: f"booked {call.inputs['text']}",
    "send": lambda call: f"sent {call.inputs['text']}",
}


class Entry(msgspec.Struct, frozen=True):
    """A line of the world's record: the `child`-th process started a call, or completed its effect."""

    child: int
    what: str
    run: str
    node: str
    attempt: int
    name: str
    key: str


class Lines:
    """A file to which processes append complete lines; a later crash of the process does not remove them."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, line: bytes) -> None:
        """Appends a line; the kernel has it when this returns. A process killed during the write may leave a partial
        line if the line crosses a page boundary, so each line starts with a line break.
        """
        os.write(self._descriptor, b"\n" + line + b"\n")


def lines(path: Path, kind: type[T]) -> list[T]:
    """Returns the complete lines. Partial lines are from processes that were killed during the write."""
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().splitlines():
        with suppress(msgspec.DecodeError):
            found.append(msgspec.json.decode(line, type=kind))
    return found


class World:
    """Workers that record each call before it starts, and each effect when it happens. Calls take up to two
    milliseconds.
    """

    def __init__(self, record: Lines, child: int, reach: Callable[[str], None], seed: int) -> None:
        self._record, self._child, self._reach = record, child, reach
        self._chance = Random(seed)

    async def call(self, call: CallRequest, on_text: TextCallback | None = None) -> CallResult | CallError:
        """Executes one call; an agent's value follows a piece of text."""
        if call.kind == "agent" and on_text is not None:
            on_text("…")
        return await self._answer(call)

    def estimate(self, call: CallRequest) -> CallEstimate:
        """Answers of `writer` are memoized."""
        memo = digest(canonical([call.name, call.inputs])) if call.name == "writer" else ""
        return CallEstimate(prompt_tokens=20, max_output=20, memo_key=memo) if call.kind == "agent" else CallEstimate()

    async def count_tokens(self, call: CallRequest) -> int | None:
        """Token counts are unknown."""
        return None

    async def _answer(self, call: CallRequest) -> CallResult | CallError:
        effect = CALLED.get(call.name, "pure")
        self._reach(f"before a {effect} call")
        self._write("begin", call)
        self._reach(f"in a {effect} call")
        await asyncio.sleep(self._chance.uniform(0, 0.002))
        found = ANSWERS[call.name](call)
        if not isinstance(found, CallError):
            self._write("done", call)
        self._reach(f"after a {effect} call")
        if isinstance(found, CallError):
            return found
        usage = Usage(prompt_tokens=7, output_tokens=3, calls=1) if call.kind == "agent" else Usage()
        return CallResult(value=found, usage=usage, sent=canonical(call.inputs), received=canonical(found))

    def _write(self, what: str, call: CallRequest) -> None:
        self._record.write(
            msgspec.json.encode(
                Entry(self._child, what, call.run, call.node, call.attempt, call.name, call.idempotency_key)
            )
        )
