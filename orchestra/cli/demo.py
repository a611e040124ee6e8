"""`orchestra demo`: ten questions about real documents, answered with quotes.

The command exits with 0 only if every accepted quote is in its document at the given offsets. Three of the questions
are not answered by the documents: their correct outcome is “not found”.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from orchestra.cli.context import Opener, get_opener, load_settings, open_orchestra
from orchestra.cli.options import EndpointOption, FleetOption, ModelOption
from orchestra.cli.output import StatusLine, print_table, print_text
from orchestra.cli.typer_adapter import add_command, exit_with
from orchestra.core.errors import InputError
from orchestra.core.quantities import format_duration
from orchestra.core.untrusted_text import escape_invisible

if TYPE_CHECKING:
    from orchestra.app.orchestra import Orchestra
    from orchestra.app.result import Result
    from orchestra.cli.signals import StopSignal
    from orchestra.core.settings import Settings
    from orchestra.fleet.progress import Progress
    from orchestra.journal.history import History, NodeRow
    from orchestra.schema.builtin_models import Answer, Document

WORKFLOW = "answer_from_documents"
QUESTIONS_FILE = "questions.json"
STARTED_NOW = 1.0
"""Minimal set-up time in seconds that is shown."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    add_command(app, demo, panel="Start")


def demo(
    context: typer.Context,
    fleet: FleetOption = None,
    endpoint: EndpointOption = None,
    model: ModelOption = None,
) -> None:
    """Answer ten questions about twelve documents with quotes.

    The questions go to the configured fleet, or to a model server of yours (`--endpoint`). The set-up, such as
    downloads and the start of a server, is timed separately.
    """
    from orchestra.cli.signals import run_with_signals

    settings = load_settings(fleet=fleet, endpoint=endpoint, model=model)
    check_server(settings)
    exit_with(run_with_signals(partial(run_demo, get_opener(context), settings)))


def check_server(settings: Settings) -> None:
    """Raises `InputError` C064 if the fleet needs vLLM, and vLLM is not installed: with a server of this machine."""
    from orchestra.core.errors import FleetError
    from orchestra.fleet.config import configured_fleet
    from orchestra.fleet.endpoints import find_local_endpoints
    from orchestra.fleet.supervisor.vllm_launch import vllm_version

    if not configured_fleet(settings).local_servers:
        return
    try:
        vllm_version()
    except FleetError as error:
        servers = [server for server in asyncio.run(find_local_endpoints()) if server.models]
        if servers:
            first = servers[0]
            reason = f"{first.software or 'a model server'} answers at {first.address} with {first.summary}"
            hint = f"orchestra demo --endpoint {first.address} --model {first.models[0]}"
        else:
            reason = "no model server answers on this machine either"
            hint = "start Ollama or another model server, and repeat the command; or pip install 'orchestra-slm[cpu]'"
        raise InputError("C064", f"the demonstration needs a model: {error.message}", why=reason, hint=hint) from error


@dataclass(frozen=True)
class Question:
    """A question and the expected answers; `expected` is empty if the documents have none."""

    text: str
    expected: tuple[str, ...]


def read_documents(folder: Path) -> list[Document]:
    """Reads the texts of a folder by file name."""
    from orchestra.schema.builtin_models import Document

    return [Document(source=path.name, text=path.read_text("utf-8")) for path in sorted(folder.glob("*.txt"))]


def read_questions(path: Path) -> list[Question]:
    """Reads the questions of the demonstration in order."""
    return [Question(entry["question"], tuple(entry["answers"])) for entry in json.loads(path.read_text("utf-8"))]


@dataclass(frozen=True)
class QuestionResult:
    """The result of one question."""

    question: Question
    result: Result[Any]
    history: History

    @property
    def answer(self) -> Answer | None:
        """Returns the answer; None if there is none."""
        from orchestra.schema.builtin_models import Answer

        return None if self.result.value is None else Answer.model_validate(self.result.value)

    @property
    def text(self) -> str:
        """Returns the answer's text; empty if it was not found or withheld."""
        return (self.answer.text if self.answer else None) or ""


async def ask(orchestra: Orchestra, question: Question, documents: Sequence[Document]) -> QuestionResult:
    """Runs the workflow for one question."""
    from orchestra.journal.history import History

    run = await orchestra.start(orchestra.find(WORKFLOW), question=question.text, documents=documents)
    history = History.of([event async for event in run])
    return QuestionResult(question, await run.wait(), history)


def false_quotes(answer: Answer | None, documents: Sequence[Document]) -> list[str]:
    """Returns the quotes that are not in their document at the given offsets."""
    texts = {document.source: document.text for document in documents}
    citations = answer.citations if answer else []
    return [
        citation.quote
        for citation in citations
        if texts.get(citation.source, "")[citation.start : citation.end] != citation.quote
    ]


def show_result(number: int, result: QuestionResult) -> None:
    """Prints one question with its result."""
    print_text(f"{number:>2}. {result.question.text}", style="bold")
    answer = result.answer
    if answer is not None and answer.text is not None:
        print_text(f"    {escape_invisible(answer.text)}")
        for citation in answer.citations:
            place = f"{citation.source} [{citation.start}:{citation.end}]"
            print_text(f"    “{escape_invisible(citation.quote)}”  {place}", style="green")
    elif result.result.error is not None:
        print_text(f"    {escape_invisible(result.result.error.message)}", style="yellow")
    else:
        print_text("    The documents do not contain the answer.", style="yellow")
    expected = " | ".join(result.question.expected) if result.question.expected else "nothing about it"
    usage = result.result.usage
    cost = (
        f"{format_duration(result.history.seconds or 0.0)}, {usage.prompt_tokens} tokens in, {usage.output_tokens} out"
    )
    print_text(f"    the documents say: {expected} · {cost} · {result.result.run}", style="dim")


def show_summary(results: Sequence[QuestionResult], setup: float, seconds: float) -> None:
    """Prints the total cost of the nodes of all runs, and further commands.

    Args:
        results: The results, in the order of the questions.
        setup: Seconds until the model server was ready; nearly 0 if it was running already.
        seconds: Seconds from then until the last answer.
    """
    nodes: dict[str, list[NodeRow]] = {}
    for row in (row for result in results for row in result.history.rows if row.kind == "call"):
        nodes.setdefault(row.path.partition("[")[0], []).append(row)
    print_text(f"\nWhat the nodes took, all {len(results)} questions together", style="bold")
    lines = [node_line(path, rows) for path, rows in nodes.items()]
    print_table(
        ("node", "called", "calls", "outcome", "tokens in", "tokens out", "time of one"), lines, right=(2, 4, 5, 6)
    )
    rate = sum(result.result.usage.output_tokens for result in results) / seconds
    if setup >= STARTED_NOW:
        print_text(f"\nSet-up: the model server was ready after {format_duration(setup)}.")
    print_text(
        f"\n{len(results)} questions in {format_duration(seconds)}, {rate:.0f} tokens/s. Every quote is at the "
        f"position that its citation states."
    )
    question_results = [result for result in results if result.question.expected]
    right = sum(
        any(words.casefold() in result.text.casefold() for words in result.question.expected)
        for result in question_results
    )
    silent = sum(not result.text for result in results if not result.question.expected)
    print_text(
        f"Of {len(question_results)} questions that the documents answer, {right} were answered with the right words."
    )
    print_text(
        f"Of {len(results) - len(question_results)} that they do not answer, {silent} were left without an answer."
    )
    run = results[0].result.run
    rows = results[0].history.rows
    reader_path = next((row.path for row in rows if row.name == "generative_reader"), "readings[0]")
    print_text("\nLook next", style="bold")
    print_text(f"  orchestra runs show {run}")
    print_text(f"  orchestra runs show {run} '{reader_path}' --prompt")
    print_text(f"  orchestra graph {WORKFLOW}")


def node_line(path: str, rows: Sequence[NodeRow]) -> tuple[str, ...]:
    """Returns the cost of one node in all runs, as a line of the table."""
    from orchestra.core.events import NO_USAGE

    statuses = Counter("done" if row.status == "value" else row.status for row in rows)
    usage = sum((row.usage for row in rows), NO_USAGE)
    mean = sum(row.seconds or 0.0 for row in rows) / len(rows)
    outcomes = ", ".join(f"{count} {status}" for status, count in statuses.items())
    return (
        path,
        rows[0].name,
        str(len(rows)),
        outcomes,
        str(usage.prompt_tokens or ""),
        str(usage.output_tokens or ""),
        format_duration(mean),
    )


async def run_demo(open_: Opener, settings: Settings, stop: StopSignal) -> int:
    """Opens the fleet, runs the questions, shows the results; returns the exit status."""
    from orchestra.core.resources import package_data

    folder = package_data("documents")
    documents, questions = read_documents(folder), read_questions(folder / QUESTIONS_FILE)
    print_text(f"{len(questions)} questions to {len(documents)} documents from Wikipedia, by the workflow {WORKFLOW}\n")
    timer = SetupTimer()
    wrong: list[str] = []
    results: list[QuestionResult] = []
    async with open_orchestra(open_, settings, timer) as orchestra:
        tasks = [asyncio.create_task(ask(orchestra, question, documents)) for question in questions]
        try:
            for number, task in enumerate(tasks, 1):
                result = await task
                timer.close()
                if result.result.status not in ("done", "abstained") and result.result.error is not None:
                    raise result.result.error
                show_result(number, result)
                results.append(result)
                wrong += false_quotes(result.answer, documents)
        finally:
            for task in tasks:
                task.cancel()
        seconds = time.monotonic() - timer.ready
    for quote in wrong:
        print(f"this quote is not at the position that its citation states: {quote!r}", file=sys.stderr)
    if not wrong:
        show_summary(results, timer.ready - timer.began, seconds)
    return 1 if wrong else 0


class SetupTimer(StatusLine):
    """Shows progress, and records when the last preparation was reported."""

    def __init__(self) -> None:
        super().__init__()
        self.began = self.ready = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Shows a report."""
        super().__call__(progress)
        self.ready = time.monotonic()
