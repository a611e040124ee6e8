"""`orchestra runs show`: shows a run, one of its nodes or the bytes of a model call, as text, JSON or one HTML page."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orchestra.app.claims.claims import (
    OutputClaim,
    dropped_claims,
    extract_claims,
)
from orchestra.app.inputs import unanswered_questions
from orchestra.app.result import outcome_score
from orchestra.app.run_text import describe_choices, describe_given, describe_model_choice, format_value
from orchestra.app.snapshot_store import restore_program, stored_workflows
from orchestra.cli.context import load_settings_to_inspect
from orchestra.cli.output import print_json, print_text
from orchestra.cli.run.answer_text import answer_text, is_reply
from orchestra.cli.run.questions import format_open_questions, question_data
from orchestra.cli.run.result_view import (
    claim_data,
    format_cost,
    show_claims,
    show_defaults,
    show_guarantees,
    show_nodes,
)
from orchestra.cli.runs.find import describe_owner, open_journal_of, request_of, status_of, why_interrupted
from orchestra.cli.runs.tail import describe_incident
from orchestra.core.atomic_files import open_private_file
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import Event, RunStarted, encode, last_read_message, tier_name
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.protocols import Journal
from orchestra.core.quantities import format_duration, format_money, format_size, format_time
from orchestra.core.suggestions import closest_match
from orchestra.core.tags import Tags, format_tags
from orchestra.core.untrusted_text import escape_invisible, pluralize
from orchestra.journal.history import PERSON, History, NodeAttempt, NodeRow, PlanReuse, TierUsage, usage_by_tier

if TYPE_CHECKING:
    from orchestra.cli.run.explain import ProgramExplanation

MAX_TROUBLES = 20
MAX_INCIDENTS = 20


@dataclass(frozen=True, slots=True)
class ShowOptions:
    """How a run is shown: with every element, an explanation, or as JSON."""

    everything: bool = False
    explain: bool = False
    as_json: bool = False


async def show_run(name: str, node: str, attempt: int | None, options: ShowOptions) -> None:
    """Prints a run, one of its nodes, or the bytes of an `attempt` (0 is the last).

    Raises `InputError` C018 or C019; with an explanation also the errors of reading the workflow and the fleet file.
    """
    async with open_journal_of(name) as (journal, run):
        events = await journal.read(run)
        history = History.of(events)
        if node:
            row = find_node(history, node)
            if attempt is not None:
                record = find_attempt(row, attempt)
                _print_bytes(
                    [await journal.get_blob(digest) or b"" for digest in (record.sent, record.received) if digest]
                )
            else:
                _show_node(row, run, history.tiers, as_json=options.as_json)
            return
        claims, status = await _claims_and_status(journal, run, events, history)
        questions, reason = history.open_questions, ""
        if history.finished is None:
            questions = tuple(
                unanswered_questions(history.open_questions, await journal.inbox(run, last_read_message(events)))
            )
        if status == "running":
            reason = await describe_owner(journal, run)
        if status == "interrupted":
            reason = escape_invisible(await why_interrupted(journal, run, events))
            if 0 < len(questions) < len(history.open_questions):
                reason += f"\n\n{format_open_questions(run, questions)}"
            rows = (
                msgspec.structs.replace(row, status="interrupted") if row.status == "running" else row
                for row in history.rows
            )
            history = replace(history, rows=tuple(rows))
        explanation = await _explain_run(journal, events, history) if options.explain else None
    tags = events[0].tags if events and isinstance(events[0], RunStarted) else {}
    dropped_parts = dropped_claims(events)
    if options.as_json:
        print_json(
            {
                "run": run,
                "status": status,
                "tags": tags,
                "asked": question_data(run, questions),
                **_explanation_data(explanation),
                **claim_data(claims, dropped_parts),
                "tiers": usage_by_tier(history),
                "events": [msgspec.Raw(encode(event)) for event in events],
            }
        )
    else:
        stand = format_open_questions(run, questions) if status == "waiting" else reason
        _show_run(history, status, stand, claims, explanation, dropped_parts, everything=options.everything, tags=tags)


async def _claims_and_status(
    journal: Journal, run: str, events: Sequence[Event], history: History
) -> tuple[Sequence[OutputClaim], str]:
    """The claims of a run and its status."""
    claims = (
        extract_claims(events, await stored_workflows(journal, events[0]))
        if events and isinstance(events[0], RunStarted)
        else ()
    )
    return claims, history.status if history.finished is not None else await status_of(journal, run)


async def _explain_run(journal: Journal, events: Sequence[Event], history: History) -> ProgramExplanation | None:
    """Explains a run with its own workflow and the current fleet; None for a run without a start event."""
    from orchestra.app.project import Project
    from orchestra.cli.context import print_trust_notice
    from orchestra.cli.run.explain import explain

    start_event = next((event for event in events if isinstance(event, RunStarted)), None)
    if start_event is None:
        return None
    settings = load_settings_to_inspect()
    print_trust_notice(settings)
    project = Project.load(settings)
    program = await restore_program(project, journal, start_event, will_call=False)
    return explain(project, program, start_event.inputs, start_event.label, history=history)


def _explanation_data(explanation: ProgramExplanation | None) -> dict[str, Any]:
    """The explanation as JSON values, if there is one."""
    if explanation is None:
        return {}
    from orchestra.cli.run.explain import as_data

    return {"explain": as_data(explanation)}


async def write_page(name: str, target: Path) -> None:
    """Writes a run as one HTML file; `-` is stdout. Raises `InputError` C018, and `OrchestraError` C023 if it cannot be
    written.
    """
    from orchestra.app.html.content import RunContent
    from orchestra.app.html.saved_run import render_saved_run
    from orchestra.app.run_record import read_run_record
    from orchestra.app.stored_certificates import read_certificates

    async with open_journal_of(name) as (journal, run):
        events = await journal.read(run)
        history = History.of(events)
        claims, status = await _claims_and_status(journal, run, events, history)
        certificates = await read_certificates(journal, events)
        record = await read_run_record(journal, run, time.time(), with_blobs=True)
    confidence = outcome_score(history.outcome, events)
    content = RunContent(events, status, claims, dropped_claims(events), confidence, certificates=certificates)
    _write_text(target, render_saved_run(content, record))


def _write_text(target: Path, text: str) -> None:
    if str(target) == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())  # the page declares UTF-8
        return
    try:
        with open_private_file(target) as file:
            file.write(text.encode())
    except OSError as error:
        raise OrchestraError(
            "C023", f"{target} cannot be written: {error.strerror}", hint="choose another one with --html"
        ) from error
    print_text(escape_invisible(f"{target}: {format_size(len(text.encode()))}; open it in a browser"))


def _step_name(path: str) -> str:
    """The path of a step within the plan of a request; empty for other nodes."""
    first, _, rest = path.partition("/")
    return rest if "@" in first else ""


def find_node(history: History, node: str) -> NodeRow:
    """The row of a node; of a step of a plan also by the name that `orchestra ask` shows, in the latest version.

    Raises:
        InputError: C019: there is no such node; with the most similar path.
    """
    if row := history.row(node):
        return row
    if steps := [row for row in history.rows if _step_name(row.path) == node]:
        return steps[-1]
    paths = [row.path for row in history.rows]
    near = closest_match(node, paths)
    hint = f"did you mean {near!r}?" if near else f"nodes are: {', '.join(paths[:20]) or 'none yet'}"
    raise InputError("C019", f"run {history.run} has no node {node!r}", hint=hint)


def find_attempt(row: NodeRow, attempt: int) -> NodeAttempt:
    """An attempt that called a model; 0 is the last. Raises `InputError` C019."""
    sent_attempts = [row_attempt for row_attempt in row.attempts if row_attempt.sent or row_attempt.received]
    for node_attempt in reversed(sent_attempts):
        if attempt in (0, node_attempt.number):
            return node_attempt
    if sent_attempts:
        numbers = ", ".join(str(row_attempt.number) for row_attempt in sent_attempts)
        raise InputError("C019", f"{row.path} has no attempt {attempt} with sent bytes", hint=f"attempts: {numbers}")
    hint = "choose one of its parts, such as " + f"'{row.path}[0]'" if row.elements else "show it without --prompt"
    raise InputError("C019", f"{row.path} has not called a model", hint=hint)


def _print_bytes(parts: Sequence[bytes]) -> None:
    """Prints exact bytes, each part followed by a newline; escaped on a terminal."""
    if sys.stdout.isatty():
        for title, part in zip(("sent", "received"), parts, strict=False):
            print_text(f"--- {title}: {len(part)} bytes", style="bold")
            print_text(escape_invisible(part.decode("utf-8", "backslashreplace")))
        return
    sys.stdout.flush()
    for part in parts:
        sys.stdout.buffer.write(part + b"\n")


def _show_run(
    history: History,
    status: str,
    state_note: str,
    claims: Sequence[OutputClaim],
    explanation: ProgramExplanation | None,
    dropped_claims: Sequence[OutputClaim],
    *,
    everything: bool,
    tags: Tags,
) -> None:
    """Prints a run. `state_note` is what it waits for, or why it does not continue."""
    print_text(escape_invisible(_headline(history, status, tags), keep=""), style="bold")
    if request := request_of(history):
        print_text(escape_invisible(f"> {request}"))
    match status:
        case "waiting":
            print_text(f"\n{state_note}", style="yellow")
        case "interrupted":
            print_text(state_note, style="yellow")
        case "running":
            print_text(state_note, style="dim")
        case _:
            pass
    if isinstance(history.outcome, ValueOutcome):
        value, asked_for = history.outcome.value, request_of(history) or ""
        if is_reply(value):
            print_text(escape_invisible(answer_text(value, asked_for)))
        else:
            answer = format_value(value)
            print_text(escape_invisible(answer))
            show_claims(claims, answer, dropped_claims)
    elif history.outcome is not None:
        print_text(
            escape_invisible(f"{history.outcome.origin}: {history.outcome.reason}".removeprefix(": ")), style="yellow"
        )
    print_text()
    if explanation is None:
        show_nodes(history, everything=everything)
    else:
        from orchestra.cli.run.explain import show_explanation

        show_explanation(explanation)
    show_guarantees(
        {row.path: attempt.guarantee for row in history.rows for attempt in row.attempts if attempt.guarantee}
    )
    show_defaults(history)
    _show_incidents(history)
    troubles = [
        f"{row.path}: {row.error or row.fallback_reason}"
        for row in history.rows
        if row.error or row.original_outcome is not None
    ]
    if troubles:
        print_text()
    for trouble in troubles[:MAX_TROUBLES]:
        print_text(escape_invisible(trouble), style="yellow")
    path = next((row.path for row in history.rows if any(attempt.sent for attempt in row.attempts)), None)
    if path:
        print_text(escape_invisible(f"\nmore: orchestra runs show {history.run} '{path}' --prompt"), style="dim")


def _headline(history: History, status: str, tags: Tags) -> str:
    """The name, status and tags of a run."""
    duration_text = (
        f" in {format_duration(history.seconds)}{format_cost(history.usage)}" if history.seconds is not None else ""
    )
    parent_text = f", forked from {history.parent}" if history.parent else ""
    tags_text = f", {format_tags(tags)}" if tags else ""
    return (
        f"{history.workflow}: {status}{duration_text}, started {format_time(history.started)}{parent_text}{tags_text}"
    )


def describe_saving(saved: PlanReuse) -> str:
    """The savings of a cached plan."""
    calls, tokens = saved.usage.calls, saved.usage.prompt_tokens + saved.usage.output_tokens
    whose = f"{saved.node}: the" if saved.node else "its"
    return (
        f"{whose} plan was written for run {saved.run}: {pluralize(calls, 'call')} of the router and "
        f"{tokens} tokens saved"
    )


def describe_tiers(tiers: Sequence[TierUsage]) -> list[str]:
    """The calls, outcomes and cost of each tier, one line each."""
    lines = []
    for tier in tiers:
        usage = tier.usage
        cost_text = f", {format_money(usage.money)} of money" if usage.money > 0 else ""
        cost = (
            f", {usage.prompt_tokens:,} tokens in, {usage.output_tokens:,} out{cost_text}, "
            f"{format_duration(usage.seconds)}"
            if usage.calls
            else ""
        )
        calls_text = f"{pluralize(tier.calls, 'call')}, {tier.accepted} accepted{cost}"
        if tier.name == PERSON:
            calls_text = pluralize(tier.calls, "answer")
        parts = [calls_text] if tier.calls else []
        parts += [f"passed over {pluralize(count, 'time')}: {reason}" for reason, count in tier.skipped.items()]
        lines.append(f"{tier.name}: {'; '.join(parts)}")
    return lines


def _show_incidents(history: History) -> None:
    """Prints external events of the run, and the calls that it did not make itself."""
    lines = []
    for event in history.external_events[-MAX_INCIDENTS:]:
        node = getattr(event, "node", "")
        lines.append(f"{format_time(event.at)}  {f'{node}: ' if node else ''}{describe_incident(event)}")
    if len(history.external_events) > MAX_INCIDENTS:
        lines.insert(
            0,
            f"and {len(history.external_events) - MAX_INCIDENTS} before; orchestra runs tail {history.run} --no-follow",
        )
    lines += [
        f"{row.path}: {describe_given(row.overridden_by)}" for row in history.rows if row.overridden_by is not None
    ][:MAX_INCIDENTS]
    choices = list(describe_choices(history.rows))
    lines += choices[:MAX_INCIDENTS]
    if len(choices) > MAX_INCIDENTS:
        more_text = f"and {len(choices) - MAX_INCIDENTS} more selections of an agent or a model"
        lines.append(f"{more_text}; orchestra runs tail {history.run} --no-follow")
    recalled_counts = Counter(
        attempt.reused_from for row in history.rows for attempt in row.attempts if attempt.reused_from
    )
    lines += describe_tiers(usage_by_tier(history))
    lines += [describe_saving(reused_plan) for reused_plan in history.reused_plans]
    lines += [f"{pluralize(count, 'answer')} recalled from run {run}" for run, count in recalled_counts.items()]
    if lines:
        print_text()
    for line in lines:
        print_text(escape_invisible(line), style="dim")


def _show_node(row: NodeRow, run: str, tiers: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "run": run,
                "node": row.path,
                "status": row.status,
                "because": row.choice_reason,
                "outcome": row.outcome,
                "instead": row.original_outcome,
                "attempts": row.attempts,
                "corrected": row.correction,
                "unanswered": row.unanswered_reason,
                "given": row.overridden_by,
                "usage": row.usage,
            }
        )
        return
    duration_text = f" in {format_duration(row.seconds)}" if row.seconds is not None else ""
    print_text(
        escape_invisible(
            f"{row.path}: {row.display_status}{duration_text}{f', asked {row.name}' if row.name else ''}", keep=""
        ),
        style="bold",
    )
    if row.choice_reason:
        print_text(escape_invisible(f"  chose {row.choice_reason}"), style="dim")
    for attempt in row.attempts:
        _show_attempt(
            attempt, tier_name(tiers, attempt.tier) if attempt.tier else "", escalated=row.outcome is not None
        )
    if row.correction is not None:
        print_text(
            escape_invisible(
                f"\nanswered{f' by {row.correction.by}' if row.correction.by else ' by a person'}, "
                f"{format_time(row.correction.at)}"
            )
        )
        print_text(escape_invisible(format_value(row.correction.value)))
    if row.error or row.original_outcome is not None:
        print_text(escape_invisible(f"\n{row.error or row.fallback_reason}"), style="yellow")
    if row.overridden_by is not None:
        print_text(escape_invisible(f"\n{describe_given(row.overridden_by)}"))
    if (not row.attempts or row.original_outcome is not None or row.overridden_by is not None) and isinstance(
        row.outcome, ValueOutcome
    ):
        print_text(escape_invisible(format_value(row.outcome.value)))
    if row.unanswered_reason:
        print_text(escape_invisible(f"{row.unanswered_reason}; the default applies"), style="dim")


def _show_attempt(attempt: NodeAttempt, tier: str, *, escalated: bool = False) -> None:
    usage = attempt.usage
    cost = (
        f"{usage.prompt_tokens} tokens in, {usage.output_tokens} out, "
        f"{format_duration(usage.seconds)}{format_cost(usage)}"
    )
    location = f" on {attempt.server}{f' ({attempt.model})' if attempt.model else ''}" if attempt.server else ""
    if attempt.reused_from:
        location, cost = "", escape_invisible(f"recalled from run {attempt.reused_from}")
    location = f", {tier}{location}" if tier else location
    if attempt.seconds is None:
        cost = "without a recorded end" if escalated else "under way"
    print_text(f"\nattempt {attempt.number}{escape_invisible(location, keep='')}: {cost}")
    if attempt.escalation_reason:
        print_text(escape_invisible(f"  {describe_model_choice(attempt)}"), style="dim")
    if attempt.seconds is not None:
        value = f"{attempt.error}: {attempt.reason}" if attempt.error else format_value(attempt.value)
        print_text(escape_invisible(value), style="yellow" if attempt.error else "")
    for line in attempt.frames:
        print_text(escape_invisible(f"  at {line}", keep=""), style="dim")
    if attempt.error and attempt.hint:
        print_text(escape_invisible(f"  {attempt.hint}"), style="dim")
    for verdict in attempt.verdicts:
        print_text(
            escape_invisible(f"  {verdict.check}: {verdict.outcome} ({verdict.score:.2f}) {verdict.reason}".rstrip())
        )
    if attempt.accepted is not None:
        print_text(
            escape_invisible(
                f"  accepted{_format_score(attempt.score)}"
                if attempt.accepted
                else f"  not accepted: {attempt.rejection_reason}"
            )
        )
    if attempt.guarantee:
        print_text(escape_invisible(f"  certified: {attempt.guarantee}"), style="green")


def _format_score(score: float | None) -> str:
    return "" if score is None else f" with {score:.2f}"
