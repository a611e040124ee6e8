"""`orchestra runs`: what ran, what each node did, and the exact bytes that went to a model and came back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.failure import Verb
from orchestra.cli.opening import settings
from orchestra.cli.screen import console, print_json, say, seconds, table
from orchestra.errors import InputError
from orchestra.values.schema import nearest
from orchestra.values.text import visible

if TYPE_CHECKING:
    from orchestra.cli.story import NodeStory
    from orchestra.events import AttemptFinished, Event
    from orchestra.journal.sqlite import SqliteJournal

Run = Annotated[str, typer.Argument(help="A run's id, the beginning of one, or `last`.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    runs = typer.Typer(no_args_is_help=True, help="What ran: runs, their nodes, and the exact prompts.")

    @runs.command("list", cls=Verb)
    def list_(
        limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many, newest first.")] = 20,
        as_json: AsJson = False,
    ) -> None:
        """List the latest runs."""
        asyncio.run(_list(limit, as_json))

    @runs.command("show", cls=Verb)
    def show(
        run: Run = "last",
        node: Annotated[str, typer.Argument(help="A node's path, such as readings[3].", show_default=False)] = "",
        prompt: Annotated[bool, typer.Option("--prompt", help="Print the bytes that were sent and received, exactly.")] = False,
        attempt: Annotated[int, typer.Option(min=0, help="Of which attempt; 0 is the last.")] = 0,
        everything: Annotated[bool, typer.Option("--all", help="One row an element, however many there are.")] = False,
        as_json: AsJson = False,
    ) -> None:
        """Show a run; or one of its nodes; or, with --prompt, what a model was sent and answered."""
        if prompt and not node:
            raise InputError("C019", "--prompt needs a node", hint=f"orchestra runs show {run} NODE --prompt")
        asyncio.run(_show(run, node, attempt if prompt else None, everything=everything, as_json=as_json))

    app.add_typer(runs, name="runs", rich_help_panel="Look back")


@asynccontextmanager
async def _opened() -> AsyncIterator[SqliteJournal | None]:
    """The journal, or None where nothing has been recorded: looking makes no file."""
    from orchestra.journal.sqlite import SqliteJournal

    place = settings().journal
    if not isinstance(place, Path):
        raise InputError("C018", "the journal is off, so no runs are recorded", hint="orchestra config show says what turned it off")
    if not place.exists():
        yield None
        return
    async with SqliteJournal.open(place) as journal:
        yield journal


async def _list(limit: int, as_json: bool) -> None:
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
            datetime.fromtimestamp(summary.started).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
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


async def _show(name: str, node: str, attempt: int | None, *, everything: bool, as_json: bool) -> None:
    from orchestra.cli.story import tell

    async with _opened() as journal:
        run = await find_run(journal, name)
        assert journal is not None  # `find_run` refuses where there is none
        events = await journal.read(run)
        if node:
            story = find_node(tell(events), node, run)
            if attempt is not None:
                call = find_attempt(story, attempt)
                _print_bytes([await journal.blob(digest) or b"" for digest in (call.sent, call.received) if digest])
                return
            _show_node(story, run, as_json=as_json)
            return
    if as_json:
        import msgspec

        print_json({"run": run, "events": [msgspec.Raw(_encoded(event)) for event in events]})
    else:
        _show_run(run, events, everything=everything)


def find_node(stories: Sequence[NodeStory], node: str, run: str) -> NodeStory:
    """The story of a node. Raises `InputError` C019 with the nearest path."""
    for story in stories:
        if story.path == node:
            return story
    paths = [story.path for story in stories]
    inside = [path for path in paths if path.startswith((f"{node}[", f"{node}/", f"{node}#"))]
    near = nearest(node, paths)
    hint = (
        f"it has parts: {', '.join(inside[:8])}" if inside else f"did you mean {near!r}?" if near else f"nodes are: {', '.join(paths[:20])}"
    )
    raise InputError("C019", f"run {run} has no node {node!r}", hint=hint)


def find_attempt(story: NodeStory, attempt: int) -> AttemptFinished:
    """An attempt that has come back; 0 is the last. Raises `InputError` C019."""
    known = [call.attempt for call in story.calls]
    for call in reversed(story.calls):
        if attempt in (0, call.attempt):
            if not call.sent and not call.received:
                raise InputError("C019", f"{story.path} sent nothing: {story.name or 'it'} asks no model", hint="see it without --prompt")
            return call
    attempts = ", ".join(str(number) for number in known) or "none"
    raise InputError("C019", f"{story.path} has no attempt {attempt or ''} that came back", hint=f"attempts: {attempts}")


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


def _show_run(run: str, events: Sequence[Event], *, everything: bool) -> None:
    from orchestra.cli.answer import as_text, show_nodes
    from orchestra.cli.story import bounds, status_of, tell
    from orchestra.values.outcome import Value

    started, finished = bounds(events)
    if started is None:
        say(f"run {run} has no events yet")
        return
    when = datetime.fromtimestamp(started.at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    took = f" in {seconds(finished.at - started.at)}" if finished else ""
    say(f"{started.workflow}: {finished.status if finished else 'running, or cut off'}{took}, started {when}", style="bold")
    if finished is not None:
        reason = getattr(finished.outcome, "reason", "")
        text = as_text(finished.outcome.value) if isinstance(finished.outcome, Value) else f"{status_of(finished.outcome)}: {reason}"
        say(visible(text))
    stories = tell(events)
    say()
    show_nodes(stories, everything=everything)
    troubles = [story for story in stories if story.reason or story.why]
    if troubles:
        say()
    for story in troubles[:20]:
        say(visible(f"{story.path}: {story.why or story.reason}"), style="" if story.status == "done" else "yellow")
    asked = next((story.path for story in stories if any(call.sent for call in story.calls)), "NODE")
    say(f"\nmore: orchestra runs show {run} '{asked}' --prompt", style="dim")


def _show_node(story: NodeStory, run: str, *, as_json: bool) -> None:
    from orchestra.cli.answer import as_text

    if as_json:
        print_json({"run": run, "node": story.path, "outcome": story.outcome, "attempts": story.calls, "verdicts": story.verdicts})
        return
    asked = f", asked {story.name}" if story.name else ""
    say(f"{story.path}: {story.status} in {seconds(story.seconds)}{asked}", style="bold")
    for call in story.calls:
        cost = f"{call.usage.prompt_tokens} tokens in, {call.usage.output_tokens} out, {seconds(call.usage.seconds)}"
        where = f" on {call.server} ({call.model})" if call.server else ""
        say(f"\nattempt {call.attempt}{where}: {cost}")
        say(visible(f"{call.error}: {call.reason}" if call.error else as_text(call.value)), style="yellow" if call.error else "")
        for judged in (verdict for verdict in story.verdicts if verdict.attempt == call.attempt):
            for verdict in judged.verdicts:
                say(visible(f"  {verdict.check}: {verdict.outcome} ({verdict.score:.2f}) {verdict.reason}".rstrip()))
            say(visible(f"  accepted{_score(judged.score)}" if judged.accepted else f"  not accepted: {judged.reason}"))
    if story.why:
        say(visible(f"\n{story.why}"), style="yellow")
    elif not story.calls and story.outcome is not None:
        say(visible(as_text(getattr(story.outcome, "value", None))))


def _score(score: float | None) -> str:
    return "" if score is None else f" with {score:.2f}"


def _encoded(event: Event) -> Any:
    from orchestra.events import encode

    return encode(event)
