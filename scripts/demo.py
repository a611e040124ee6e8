"""Runs ten questions about real documents on the fleet of this machine, and shows the answers. `make demo` runs it.

Exits with 0 only if every accepted quote is in its document at the given offsets. Three of the questions are not
answered by the documents: their correct outcome is “not found”.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra.app.orchestra import Orchestra
from orchestra.app.result import Result
from orchestra.cli.output import StatusLine, print_table, print_text
from orchestra.core.errors import OrchestraError
from orchestra.core.events import NO_USAGE
from orchestra.core.quantities import format_duration
from orchestra.core.untrusted_text import escape_invisible
from orchestra.fleet.progress import Progress
from orchestra.journal.history import History, NodeRow
from orchestra.schema.builtin_models import Answer, Document

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples" / "documents"
STARTED_NOW = 1.0
"""Minimal start-up time in seconds that is shown."""


@dataclass(frozen=True)
class Question:
    """A question and the expected answer; `told` is empty if the documents have none."""

    text: str
    told: tuple[str, ...]


def read_documents(folder: Path) -> list[Document]:
    """Reads the texts of a folder by file name."""
    return [Document(source=path.name, text=path.read_text("utf-8")) for path in sorted(folder.glob("*.txt"))]


def read_questions(path: Path) -> list[Question]:
    """Reads the questions of the demo in order."""
    return [Question(entry["question"], tuple(entry["answers"])) for entry in json.loads(path.read_text("utf-8"))]


@dataclass(frozen=True)
class Told:
    """The result of one question."""

    question: Question
    result: Result[Any]
    history: History

    @property
    def answer(self) -> Answer | None:
        """Returns the answer; None if there is none."""
        return None if self.result.value is None else Answer.model_validate(self.result.value)

    @property
    def text(self) -> str:
        """Returns the answer's text; empty if it was not found or withheld."""
        return (self.answer.text if self.answer else None) or ""


async def ask(orchestra: Orchestra, question: Question, documents: Sequence[Document]) -> Told:
    """Runs the workflow for one question."""
    workflow = orchestra.find("answer_from_documents")
    run = await orchestra.start(workflow, question=question.text, documents=documents)
    history = History.of([event async for event in run])
    return Told(question, await run.wait(), history)


def false_quotes(answer: Answer | None, documents: Sequence[Document]) -> list[str]:
    """Returns the quotes that are not in their document at the given offsets."""
    texts = {document.source: document.text for document in documents}
    cited = answer.citations if answer else []
    return [found.quote for found in cited if texts.get(found.source, "")[found.start : found.end] != found.quote]


def show(number: int, told: Told) -> None:
    """Prints one question with its result."""
    print_text(f"{number:>2}. {told.question.text}", style="bold")
    answer = told.answer
    if answer is not None and answer.text is not None:
        print_text(f"    {escape_invisible(answer.text)}")
        for found in answer.citations:
            print_text(
                f"    “{escape_invisible(found.quote)}”  {found.source} [{found.start}:{found.end}]", style="green"
            )
    elif told.result.error is not None:
        print_text(f"    {escape_invisible(told.result.error.message)}", style="yellow")
    else:
        print_text("    The documents do not contain the answer.", style="yellow")
    said = " | ".join(told.question.told) if told.question.told else "nothing about it"
    usage = told.result.usage
    took = f"{format_duration(told.history.seconds or 0.0)}, {usage.prompt_tokens} tokens in, {usage.output_tokens} out"
    print_text(f"    the documents say: {said} · {took} · {told.result.run}", style="dim")


def show_sum(answers: Sequence[Told], started: float, took: float) -> None:
    """Prints the total cost of the nodes of all runs, and further commands.

    Args:
        answers: The answers, in the order of the questions.
        started: Seconds until the model server was ready; nearly 0 if it was running already.
        took: Seconds from then until the last answer.
    """
    nodes: dict[str, list[NodeRow]] = {}
    for row in (row for told in answers for row in told.history.rows if row.kind == "call"):
        nodes.setdefault(row.path.partition("[")[0], []).append(row)
    print_text(f"\nWhat the nodes took, all {len(answers)} questions together", style="bold")
    lines = [line(path, rows) for path, rows in nodes.items()]
    print_table(
        ("node", "called", "calls", "outcome", "tokens in", "tokens out", "time of one"), lines, right=(2, 4, 5, 6)
    )
    rate = sum(told.result.usage.output_tokens for told in answers) / took
    if started >= STARTED_NOW:
        print_text(f"\nThe model server was ready after {format_duration(started)}.")
    print_text(
        f"\n{len(answers)} questions in {format_duration(took)}, {rate:.0f} tokens/s. Every quote is at the "
        f"position that its citation states."
    )
    known = [told for told in answers if told.question.told]
    right = sum(any(words.casefold() in told.text.casefold() for words in told.question.told) for told in known)
    silent = sum(not told.text for told in answers if not told.question.told)
    print_text(f"Of {len(known)} questions that the documents answer, {right} were answered with the right words.")
    print_text(f"Of {len(answers) - len(known)} that they do not answer, {silent} were left without an answer.")
    run, read = (
        answers[0].result.run,
        next((row.path for row in answers[0].history.rows if row.name == "generative_reader"), "readings[0]"),
    )
    print_text("\nLook next", style="bold")
    print_text(f"  orchestra runs show {run}")
    print_text(f"  orchestra runs show {run} '{read}' --prompt")
    print_text("  orchestra graph answer_from_documents")


def line(path: str, rows: Sequence[NodeRow]) -> tuple[str, ...]:
    """Returns the cost of one node in all runs, as a line of the table."""
    statuses = Counter("done" if row.status == "value" else row.status for row in rows)
    usage = sum((row.usage for row in rows), NO_USAGE)
    mean = sum(row.seconds or 0.0 for row in rows) / len(rows)
    came = ", ".join(f"{count} {status}" for status, count in statuses.items())
    return (
        path,
        rows[0].name,
        str(len(rows)),
        came,
        str(usage.prompt_tokens or ""),
        str(usage.output_tokens or ""),
        format_duration(mean),
    )


async def demo(config: str | None) -> int:
    """Opens the fleet, runs the questions, shows the results; returns the exit status."""
    documents, questions = read_documents(EXAMPLES), read_questions(EXAMPLES / "questions.json")
    print_text(
        f"{len(questions)} questions to {len(documents)} documents of examples/documents, by the workflow "
        f"answer_from_documents\n"
    )
    waiting, began = StatusLine(), time.monotonic()
    ready = began

    def report(progress: Progress) -> None:
        nonlocal ready
        waiting(progress)
        ready = time.monotonic()

    wrong: list[str] = []
    answers: list[Told] = []
    async with Orchestra.open(config, progress=report) as orchestra:
        tasks = [asyncio.create_task(ask(orchestra, question, documents)) for question in questions]
        for number, task in enumerate(tasks, 1):
            told = await task
            waiting.close()
            if told.result.status not in ("done", "abstained") and told.result.error is not None:
                for other in tasks:
                    other.cancel()
                raise told.result.error
            show(number, told)
            answers.append(told)
            wrong += false_quotes(told.answer, documents)
        took = time.monotonic() - ready
    for quote in wrong:
        print(f"this quote is not at the position that its citation states: {quote!r}", file=sys.stderr)
    if not wrong:
        show_sum(answers, ready - began, took)
    return 1 if wrong else 0


def main() -> int:
    """Runs the demo."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fleet", help="a fleet instead of the configured one")
    chosen = parser.parse_args()
    try:
        return asyncio.run(demo(chosen.fleet))
    except OrchestraError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
