"""What `orchestra runs show` does: a run of the journal, one of its nodes, or what a model was sent."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orchestra.app.claims.claims import Claim, claims, dropped
from orchestra.app.inputs import unanswered
from orchestra.app.snapshot_store import restored, workflows
from orchestra.cli.context import settings_to_inspect
from orchestra.cli.output import moment, money, print_json, say, seconds, size
from orchestra.cli.run.claims_view import claim_data, show_claims
from orchestra.cli.run.questions import question_data, waiting_text
from orchestra.cli.run.result_view import as_text, priced, show_defaults, show_nodes, show_promises
from orchestra.cli.runs.find import in_hand, opened_at, status_of, why_interrupted
from orchestra.cli.runs.listing import request_of
from orchestra.cli.runs.tail import choices, chosen_text, given_text, incident
from orchestra.core.atomic_files import private_file
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import Event, RunStarted, encode, opened, tier_name
from orchestra.core.outcomes import Value
from orchestra.core.protocols import Journal
from orchestra.core.suggestions import nearest
from orchestra.core.tags import Tags, written
from orchestra.core.untrusted_text import counted, visible
from orchestra.journal.history import Attempt, History, Row, Saving
from orchestra.journal.tier_usage import PERSON, Spent, spent_by_tier

if TYPE_CHECKING:
    from orchestra.cli.run.explain import Explanation

MAX_TROUBLES = 20
MAX_INCIDENTS = 20


@dataclass(frozen=True, slots=True)
class Shown:
    """How a run is to be shown: every element, what its steps might have taken, as JSON."""

    everything: bool = False
    explain: bool = False
    as_json: bool = False


async def show_run(name: str, node: str, attempt: int | None, shown: Shown) -> None:
    """Prints a run, one of its nodes, or with an `attempt` (0 is the last) the bytes of one.

    Raises `InputError` C018 or C019; to explain a run, what reading its workflow and the fleet's file raises.
    """
    async with opened_at(name) as (journal, run):
        events = await journal.read(run)
        history = History.of(events)
        if node:
            row = find_node(history, node)
            if attempt is not None:
                tried = find_attempt(row, attempt)
                _print_bytes([await journal.blob(digest) or b"" for digest in (tried.sent, tried.received) if digest])
            else:
                _show_node(row, run, history.tiers, as_json=shown.as_json)
            return
        found, status = await _standing(journal, run, events, history)
        left, why = history.asked, ""
        if history.finished is None:
            left = tuple(unanswered(history.asked, await journal.letters(run, opened(events))))
        if status == "running":
            why = await in_hand(journal, run)
        if status == "interrupted":
            why = visible(await why_interrupted(journal, run, events))
            if 0 < len(left) < len(history.asked):
                why += f"\n\n{waiting_text(run, left)}"
            rows = (replace(row, status="interrupted") if row.status == "running" else row for row in history.rows)
            history = replace(history, rows=tuple(rows))
        explanation = await _explained(journal, events, history) if shown.explain else None
    tags = events[0].tags if events and isinstance(events[0], RunStarted) else {}
    if shown.as_json:
        print_json(
            {
                "run": run,
                "status": status,
                "tags": tags,
                "asked": question_data(run, left),
                **_explanation_data(explanation),
                **claim_data(found, dropped(events)),
                "tiers": spent_by_tier(history),
                "events": [msgspec.Raw(encode(event)) for event in events],
            }
        )
    else:
        stand = waiting_text(run, left) if status == "waiting" else why
        _show_run(history, status, stand, found, explanation, dropped(events), everything=shown.everything, tags=tags)


async def _standing(journal: Journal, run: str, events: Sequence[Event], history: History) -> tuple[Sequence[Claim], str]:
    """What a run claims, and its status."""
    found = claims(events, await workflows(journal, events[0])) if events and isinstance(events[0], RunStarted) else ()
    return found, history.status if history.finished is not None else await status_of(journal, run)


async def _explained(journal: Journal, events: Sequence[Event], history: History) -> Explanation | None:
    """A run by the workflow that it began with and today's fleet; None for a run that has no beginning."""
    from orchestra.app.project import Project
    from orchestra.cli.run.explain import explain
    from orchestra.cli.trust import notice

    started = next((event for event in events if isinstance(event, RunStarted)), None)
    if started is None:
        return None
    chosen = settings_to_inspect()
    notice(chosen)
    project = Project.load(chosen)
    program = await restored(project, journal, started, asking=False)
    return explain(project, program, started.inputs, started.label, history=history)


def _explanation_data(explanation: Explanation | None) -> dict[str, Any]:
    """What --json has of an explanation, where there is one."""
    if explanation is None:
        return {}
    from orchestra.cli.run.explain import data

    return {"explain": data(explanation)}


async def write_page(name: str, target: Path) -> None:
    """Writes a run as one HTML file; `-` is stdout. Raises `InputError` C018, and `OrchestraError` C023 where it cannot be written."""
    from orchestra.cli.certify.promises import stored
    from orchestra.cli.runs.html_page import page

    async with opened_at(name) as (journal, run):
        events = await journal.read(run)
        history = History.of(events)
        found, status = await _standing(journal, run, events, history)
        held = await stored(journal, events)
    _write(target, page(history, events, found, status, held))


def _write(target: Path, text: str) -> None:
    if str(target) == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())  # a page is UTF-8, and says so
        return
    try:
        with private_file(target) as file:
            file.write(text.encode())
    except OSError as error:
        raise OrchestraError("C023", f"{target} cannot be written: {error.strerror}", hint="name another with --html") from error
    say(visible(f"{target}: {size(len(text.encode()))}; open it in a browser"))


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


def _show_run(
    history: History,
    status: str,
    stand: str,
    claimed: Sequence[Claim],
    explanation: Explanation | None,
    less: Sequence[Claim],
    *,
    everything: bool,
    tags: Tags,
) -> None:
    """Prints a run; `stand` is what it waits for, or why it does not go on."""
    say(visible(_headline(history, status, tags), keep=""), style="bold")
    if request := request_of(history):
        say(visible(f"> {request}"))
    match status:
        case "waiting":
            say(f"\n{stand}", style="yellow")
        case "interrupted":
            say(stand, style="yellow")
        case "running":
            say(stand, style="dim")
        case _:
            pass
    if isinstance(history.outcome, Value):
        answer = as_text(history.outcome.value)
        say(visible(answer))
        show_claims(claimed, answer, less)
    elif history.outcome is not None:
        say(visible(f"{history.outcome.by}: {history.outcome.reason}".removeprefix(": ")), style="yellow")
    say()
    if explanation is None:
        show_nodes(history, everything=everything)
    else:
        from orchestra.cli.run.explain import show

        show(explanation)
    show_promises({row.path: tried.promise for row in history.rows for tried in row.attempts if tried.promise})
    show_defaults(history)
    _show_incidents(history)
    troubles = [f"{row.path}: {row.error or row.rescued}" for row in history.rows if row.error or row.instead is not None]
    if troubles:
        say()
    for trouble in troubles[:MAX_TROUBLES]:
        say(visible(trouble), style="yellow")
    asked = next((row.path for row in history.rows if any(tried.sent for tried in row.attempts)), None)
    if asked:
        say(visible(f"\nmore: orchestra runs show {history.run} '{asked}' --prompt"), style="dim")


def _headline(history: History, status: str, tags: Tags) -> str:
    """What a run is, how it stands, and what it is found by."""
    took = f" in {seconds(history.seconds)}{priced(history.usage)}" if history.seconds is not None else ""
    forked = f", forked from {history.parent}" if history.parent else ""
    tagged = f", {written(tags)}" if tags else ""
    return f"{history.workflow}: {status}{took}, started {moment(history.started)}{forked}{tagged}"


def saving_text(saved: Saving) -> str:
    """What a plan that served again has saved."""
    calls, tokens = saved.usage.calls, saved.usage.prompt_tokens + saved.usage.output_tokens
    whose = f"{saved.node}: the" if saved.node else "its"
    return f"{whose} plan was made for run {saved.run}: {counted(calls, 'call')} of the router and {tokens} tokens saved"


def tiers_text(tiers: Sequence[Spent]) -> list[str]:
    """What each tier was asked for, what came of it and what it cost, a line each."""
    lines = []
    for one in tiers:
        used = one.usage
        paid = f", {money(used.money)} of money" if used.money > 0 else ""
        cost = f", {used.prompt_tokens:,} tokens in, {used.output_tokens:,} out{paid}, {seconds(used.seconds)}" if used.calls else ""
        asked = f"{counted(one.calls, 'call')}, {one.accepted} accepted{cost}"
        if one.name == PERSON:
            asked = counted(one.calls, "answer")
        parts = [asked] if one.calls else []
        parts += [f"passed over {counted(count, 'time')}: {reason}" for reason, count in one.passed_over.items()]
        lines.append(f"{one.name}: {'; '.join(parts)}")
    return lines


def _show_incidents(history: History) -> None:
    """Prints what happened to the run from outside, and which calls it did not make itself."""
    lines = []
    for event in history.incidents[-MAX_INCIDENTS:]:
        node = getattr(event, "node", "")
        lines.append(f"{moment(event.at)}  {f'{node}: ' if node else ''}{incident(event)}")
    if len(history.incidents) > MAX_INCIDENTS:
        lines.insert(0, f"and {len(history.incidents) - MAX_INCIDENTS} before; orchestra runs tail {history.run} --no-follow")
    lines += [f"{row.path}: {given_text(row.given)}" for row in history.rows if row.given is not None][:MAX_INCIDENTS]
    chosen = list(choices(history.rows))
    lines += chosen[:MAX_INCIDENTS]
    if len(chosen) > MAX_INCIDENTS:
        more = f"and {len(chosen) - MAX_INCIDENTS} more choices of an agent or a model"
        lines.append(f"{more}; orchestra runs tail {history.run} --no-follow")
    recalled = Counter(tried.recalled for row in history.rows for tried in row.attempts if tried.recalled)
    lines += tiers_text(spent_by_tier(history))
    lines += [saving_text(saved) for saved in history.saved]
    lines += [f"{counted(count, 'answer')} recalled from run {run}" for run, count in recalled.items()]
    if lines:
        say()
    for line in lines:
        say(visible(line), style="dim")


def _show_node(row: Row, run: str, tiers: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "run": run,
                "node": row.path,
                "status": row.status,
                "because": row.because,
                "outcome": row.outcome,
                "instead": row.instead,
                "attempts": row.attempts,
                "corrected": row.corrected,
                "unanswered": row.unanswered,
                "given": row.given,
                "usage": row.usage,
            }
        )
        return
    took = f" in {seconds(row.seconds)}" if row.seconds is not None else ""
    say(visible(f"{row.path}: {row.came_to}{took}{f', asked {row.name}' if row.name else ''}", keep=""), style="bold")
    if row.because:
        say(visible(f"  chose {row.because}"), style="dim")
    for tried in row.attempts:
        _show_attempt(tried, tier_name(tiers, tried.tier) if tried.tier else "", over=row.outcome is not None)
    if row.corrected is not None:
        say(visible(f"\nanswered{f' by {row.corrected.by}' if row.corrected.by else ' by a person'}, {moment(row.corrected.at)}"))
        say(visible(as_text(row.corrected.value)))
    if row.error or row.instead is not None:
        say(visible(f"\n{row.error or row.rescued}"), style="yellow")
    if row.given is not None:
        say(visible(f"\n{given_text(row.given)}"))
    if (not row.attempts or row.instead is not None or row.given is not None) and isinstance(row.outcome, Value):
        say(visible(as_text(row.outcome.value)))
    if row.unanswered:
        say(visible(f"{row.unanswered}; the default stands"), style="dim")


def _show_attempt(tried: Attempt, tier: str, *, over: bool = False) -> None:
    usage = tried.usage
    cost = f"{usage.prompt_tokens} tokens in, {usage.output_tokens} out, {seconds(usage.seconds)}{priced(usage)}"
    where = f" on {tried.server}{f' ({tried.model})' if tried.model else ''}" if tried.server else ""
    if tried.recalled:
        where, cost = "", visible(f"recalled from run {tried.recalled}")
    where = f", {tier}{where}" if tier else where
    if tried.seconds is None:
        cost = "without an end on record" if over else "under way"
    say(f"\nattempt {tried.number}{visible(where, keep='')}: {cost}")
    if tried.because:
        say(visible(f"  {chosen_text(tried)}"), style="dim")
    if tried.seconds is not None:
        said = f"{tried.error}: {tried.reason}" if tried.error else as_text(tried.value)
        say(visible(said), style="yellow" if tried.error else "")
    for line in tried.frames:
        say(visible(f"  at {line}", keep=""), style="dim")
    if tried.error and tried.hint:
        say(visible(f"  {tried.hint}"), style="dim")
    for verdict in tried.verdicts:
        say(visible(f"  {verdict.check}: {verdict.outcome} ({verdict.score:.2f}) {verdict.reason}".rstrip()))
    if tried.accepted is not None:
        say(visible(f"  accepted{_score(tried.score)}" if tried.accepted else f"  not accepted: {tried.refused}"))
    if tried.promise:
        say(visible(f"  certified: {tried.promise}"), style="green")


def _score(score: float | None) -> str:
    return "" if score is None else f" with {score:.2f}"
