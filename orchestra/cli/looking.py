"""What the verbs of `orchestra runs` do: runs found in the journal, and shown."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from orchestra.cli.answer import as_text, show_nodes
from orchestra.cli.opening import settings
from orchestra.cli.screen import console, print_json, say, seconds, table
from orchestra.errors import InputError
from orchestra.events import encode
from orchestra.journal.history import Attempt, History, Row
from orchestra.journal.sqlite import SqliteJournal
from orchestra.values.outcome import Value
from orchestra.values.schema import nearest
from orchestra.values.text import visible

MAX_TROUBLES = 20


@asynccontextmanager
async def _opened() -> AsyncIterator[SqliteJournal | None]:
    """The journal, or None where nothing has been recorded: looking makes no file."""

    place = settings().journal
    if not isinstance(place, Path):
        raise InputError("C018", "the journal is off, so no runs are recorded", hint="orchestra config show says what turned it off")
    if not place.exists():
        yield None
        return
    async with SqliteJournal.open(place) as journal:
        yield journal


async def list_runs(limit: int, as_json: bool) -> None:
    """Prints the latest runs, newest first."""
    async with _opened() as journal:
        found = await journal.runs(limit) if journal else []
    if as_json:
        print_json(found)
        return
    if not found:
        say("no runs yet; begin with: orchestra run NAME")
        return
    rows = [
        (
            summary.run,
            summary.workflow,
            summary.status,
            _moment(summary.started),
            seconds(summary.finished - summary.started) if summary.finished else "",
            str(summary.nodes),
            str(summary.usage.prompt_tokens + summary.usage.output_tokens),
        )
        for summary in found
    ]
    console().print(table(("run", "workflow", "status", "started", "took", "nodes", "tokens"), rows, right=(4, 5, 6)))


async def find_run(journal: SqliteJournal | None, name: str) -> str:
    """The id that a name stands for. Raises `InputError` C018 for none, or for more than one."""
    if journal is None:
        raise InputError("C018", f"there is no run {name!r}: nothing has been recorded yet", hint="begin with: orchestra run NAME")
    if name == "last":
        latest = await journal.runs(1)
        if not latest:
            raise InputError("C018", "there is no run yet", hint="begin with: orchestra run NAME")
        return latest[0].run
    found = await journal.find(name)
    if name in found or len(found) == 1:
        return name if name in found else found[0]
    if found:
        raise InputError("C018", f"{len(found)} runs begin with {name!r}: {', '.join(found[:5])}", hint="give more of the id")
    raise InputError("C018", f"there is no run {name!r}", hint="orchestra runs list")


async def show_run(name: str, node: str, attempt: int | None, *, everything: bool, as_json: bool) -> None:
    """Prints a run, one of its nodes, or with an `attempt` (0 is the last) the bytes of one. Raises `InputError` C018 or C019."""
    async with _opened() as journal:
        run = await find_run(journal, name)
        assert journal is not None  # `find_run` refuses where there is none
        events = await journal.read(run)
        history = History.of(events)
        if node:
            row = find_node(history, node)
            if attempt is not None:
                tried = find_attempt(row, attempt)
                _print_bytes([await journal.blob(digest) or b"" for digest in (tried.sent, tried.received) if digest])
            else:
                _show_node(row, run, as_json=as_json)
            return
    if as_json:
        print_json({"run": run, "events": [msgspec.Raw(encode(event)) for event in events]})
    else:
        _show_run(history, everything=everything)


def find_node(history: History, node: str) -> Row:
    """The row of a node. Raises `InputError` C019 with the nearest path."""
    if row := history.row(node):
        return row
    paths = [row.path for row in history.rows]
    near = nearest(node, paths)
    hint = f"did you mean {near!r}?" if near else f"nodes are: {', '.join(paths[:20]) or 'none yet'}"
    raise InputError("C019", f"run {history.run} has no node {node!r}", hint=hint)


def find_attempt(row: Row, attempt: int) -> Attempt:
    """An attempt that a model was asked in; 0 is the last. Raises `InputError` C019."""
    asked = [tried for tried in row.attempts if tried.sent or tried.received]
    for tried in reversed(asked):
        if attempt in (0, tried.number):
            return tried
    if asked:
        numbers = ", ".join(str(tried.number) for tried in asked)
        raise InputError("C019", f"{row.path} has no attempt {attempt} with bytes sent", hint=f"attempts: {numbers}")
    hint = "name one of its parts, such as " + f"'{row.path}[0]'" if row.elements else "see it without --prompt"
    raise InputError("C019", f"{row.path} has sent nothing to a model", hint=hint)


def _print_bytes(parts: Sequence[bytes]) -> None:
    """The exact bytes, each part ended by one newline; on a terminal escaped, since they may hold anything."""
    if sys.stdout.isatty():
        for title, part in zip(("sent", "received"), parts, strict=False):
            say(f"--- {title}: {len(part)} bytes", style="bold")
            say(visible(part.decode("utf-8", "backslashreplace")))
        return
    sys.stdout.flush()
    for part in parts:
        sys.stdout.buffer.write(part + b"\n")


def _show_run(history: History, *, everything: bool) -> None:
    when = _moment(history.started)
    status = history.status if history.seconds is not None else "running, or cut off"
    took = f" in {seconds(history.seconds)}" if history.seconds is not None else ""
    say(visible(f"{history.workflow}: {status}{took}, started {when}", keep=""), style="bold")
    if isinstance(history.outcome, Value):
        say(visible(_as_text(history.outcome.value)))
    elif history.outcome is not None:
        say(visible(f"{history.outcome.by}: {history.outcome.reason}".removeprefix(": ")), style="yellow")
    say()
    show_nodes(history, everything=everything)
    troubles = [row for row in history.rows if row.error]
    if troubles:
        say()
    for row in troubles[:MAX_TROUBLES]:
        say(visible(f"{row.path}: {row.error}"), style="yellow")
    asked = next((row.path for row in history.rows if any(tried.sent for tried in row.attempts)), None)
    if asked:
        say(visible(f"\nmore: orchestra runs show {history.run} '{asked}' --prompt"), style="dim")


def _show_node(row: Row, run: str, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {"run": run, "node": row.path, "status": row.status, "outcome": row.outcome, "attempts": row.attempts, "usage": row.usage}
        )
        return
    took = f" in {seconds(row.seconds)}" if row.seconds is not None else ""
    status = "done" if row.status == "value" else row.status
    say(visible(f"{row.path}: {status}{took}{f', asked {row.name}' if row.name else ''}", keep=""), style="bold")
    for tried in row.attempts:
        _show_attempt(tried)
    if row.error:
        say(visible(f"\n{row.error}"), style="yellow")
    elif not row.attempts and isinstance(row.outcome, Value):
        say(visible(_as_text(row.outcome.value)))


def _show_attempt(tried: Attempt) -> None:
    usage = tried.usage
    cost = f"{usage.prompt_tokens} tokens in, {usage.output_tokens} out, {seconds(usage.seconds)}"
    where = f" on {tried.server} ({tried.model})" if tried.server else ""
    say(f"\nattempt {tried.number}{visible(where, keep='')}: {'under way' if tried.seconds is None else cost}")
    if tried.seconds is not None:
        said = f"{tried.error}: {tried.reason}" if tried.error else _as_text(tried.value)
        say(visible(said), style="yellow" if tried.error else "")
    for verdict in tried.verdicts:
        say(visible(f"  {verdict.check}: {verdict.outcome} ({verdict.score:.2f}) {verdict.reason}".rstrip()))
    if tried.accepted is not None:
        say(visible(f"  accepted{_score(tried.score)}" if tried.accepted else f"  not accepted: {tried.refused}"))


def _score(score: float | None) -> str:
    return "" if score is None else f" with {score:.2f}"


def _as_text(value: Any) -> str:
    """A value as people read it, also where a journal's value is nested deeper than any value that Orchestra writes."""
    try:
        return as_text(value)
    except RecursionError:
        return "(nested too deep to be shown; see --json)"


def _moment(at: float) -> str:
    """A time of a journal, which may be damaged: then the number itself."""
    try:
        return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{at:g}"
