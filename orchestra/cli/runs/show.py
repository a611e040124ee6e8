"""`orchestra runs show`: shows a run, one of its nodes or the bytes of a model call, as text, JSON or one HTML page.

The page loads and executes nothing. All texts are untrusted: the template escapes them, and bidi controls and invisible
characters are spelled out.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

import msgspec
from minijinja import Environment

from orchestra.app.claims.claims import ClaimVerdict, Computation, OutputClaim, Support, dropped_claims, extract_claims
from orchestra.app.claims.locations import EvidenceLocation, RunTexts, TableCell, TextSpan
from orchestra.app.inputs import unanswered_questions
from orchestra.app.result import outcome_score
from orchestra.app.snapshot_store import restore_program, stored_workflows
from orchestra.cli.context import load_settings_to_inspect
from orchestra.cli.learn.audit import StoredCertificate, iter_guarantees
from orchestra.cli.output import format_duration, format_money, format_size, format_time, print_json, print_text
from orchestra.cli.run.questions import format_open_questions, question_data
from orchestra.cli.run.result_view import (
    QUOTE_NOTE,
    claim_data,
    format_cost,
    format_value,
    is_quote_only,
    is_supported,
    outermost_evidence,
    show_claims,
    show_defaults,
    show_guarantees,
    show_nodes,
)
from orchestra.cli.runs.find import describe_owner, open_journal_of, request_of, status_of, why_interrupted
from orchestra.cli.runs.tail import describe_choices, describe_given, describe_incident, describe_model_choice
from orchestra.core.atomic_files import open_private_file
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import Event, RunStarted, TurnStarted, encode, last_read_message, tier_name
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, ValueOutcome
from orchestra.core.protocols import Journal
from orchestra.core.suggestions import closest_match
from orchestra.core.tags import Tags, format_tags
from orchestra.core.untrusted_text import escape_invisible, pluralize, shorten
from orchestra.journal.history import PERSON, History, NodeAttempt, NodeRow, PlanReuse, TierUsage, usage_by_tier
from orchestra.verification.certificates.certify import format_percent

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
                tried = find_attempt(row, attempt)
                _print_bytes(
                    [await journal.get_blob(digest) or b"" for digest in (tried.sent, tried.received) if digest]
                )
            else:
                _show_node(row, run, history.tiers, as_json=options.as_json)
            return
        found, status = await _claims_and_status(journal, run, events, history)
        left, why = history.open_questions, ""
        if history.finished is None:
            left = tuple(
                unanswered_questions(history.open_questions, await journal.inbox(run, last_read_message(events)))
            )
        if status == "running":
            why = await describe_owner(journal, run)
        if status == "interrupted":
            why = escape_invisible(await why_interrupted(journal, run, events))
            if 0 < len(left) < len(history.open_questions):
                why += f"\n\n{format_open_questions(run, left)}"
            rows = (replace(row, status="interrupted") if row.status == "running" else row for row in history.rows)
            history = replace(history, rows=tuple(rows))
        explanation = await _explain_run(journal, events, history) if options.explain else None
    tags = events[0].tags if events and isinstance(events[0], RunStarted) else {}
    if options.as_json:
        print_json(
            {
                "run": run,
                "status": status,
                "tags": tags,
                "asked": question_data(run, left),
                **_explanation_data(explanation),
                **claim_data(found, dropped_claims(events)),
                "tiers": usage_by_tier(history),
                "events": [msgspec.Raw(encode(event)) for event in events],
            }
        )
    else:
        stand = format_open_questions(run, left) if status == "waiting" else why
        _show_run(
            history, status, stand, found, explanation, dropped_claims(events), everything=options.everything, tags=tags
        )


async def _claims_and_status(
    journal: Journal, run: str, events: Sequence[Event], history: History
) -> tuple[Sequence[OutputClaim], str]:
    """The claims of a run and its status."""
    found = (
        extract_claims(events, await stored_workflows(journal, events[0]))
        if events and isinstance(events[0], RunStarted)
        else ()
    )
    return found, history.status if history.finished is not None else await status_of(journal, run)


async def _explain_run(journal: Journal, events: Sequence[Event], history: History) -> ProgramExplanation | None:
    """Explains a run with its own workflow and the current fleet; None for a run without a start event."""
    from orchestra.app.project import Project
    from orchestra.cli.context import print_trust_notice
    from orchestra.cli.run.explain import explain

    started = next((event for event in events if isinstance(event, RunStarted)), None)
    if started is None:
        return None
    chosen = load_settings_to_inspect()
    print_trust_notice(chosen)
    project = Project.load(chosen)
    program = await restore_program(project, journal, started, will_call=False)
    return explain(project, program, started.inputs, started.label, history=history)


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
    from orchestra.cli.learn.audit import read_certificates

    async with open_journal_of(name) as (journal, run):
        events = await journal.read(run)
        history = History.of(events)
        found, status = await _claims_and_status(journal, run, events, history)
        held = await read_certificates(journal, events)
    _write_text(target, render_page(history, events, found, status, held))


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


def find_node(history: History, node: str) -> NodeRow:
    """The row of a node. Raises `InputError` C019 with the most similar path."""
    if row := history.row(node):
        return row
    paths = [row.path for row in history.rows]
    near = closest_match(node, paths)
    hint = f"did you mean {near!r}?" if near else f"nodes are: {', '.join(paths[:20]) or 'none yet'}"
    raise InputError("C019", f"run {history.run} has no node {node!r}", hint=hint)


def find_attempt(row: NodeRow, attempt: int) -> NodeAttempt:
    """An attempt that called a model; 0 is the last. Raises `InputError` C019."""
    asked = [tried for tried in row.attempts if tried.sent or tried.received]
    for tried in reversed(asked):
        if attempt in (0, tried.number):
            return tried
    if asked:
        numbers = ", ".join(str(tried.number) for tried in asked)
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
        answer = format_value(history.outcome.value)
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
    show_guarantees({row.path: tried.guarantee for row in history.rows for tried in row.attempts if tried.guarantee})
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
    asked = next((row.path for row in history.rows if any(tried.sent for tried in row.attempts)), None)
    if asked:
        print_text(escape_invisible(f"\nmore: orchestra runs show {history.run} '{asked}' --prompt"), style="dim")


def _headline(history: History, status: str, tags: Tags) -> str:
    """The name, status and tags of a run."""
    took = f" in {format_duration(history.seconds)}{format_cost(history.usage)}" if history.seconds is not None else ""
    forked = f", forked from {history.parent}" if history.parent else ""
    tagged = f", {format_tags(tags)}" if tags else ""
    return f"{history.workflow}: {status}{took}, started {format_time(history.started)}{forked}{tagged}"


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
    for one in tiers:
        used = one.usage
        paid = f", {format_money(used.money)} of money" if used.money > 0 else ""
        cost = (
            f", {used.prompt_tokens:,} tokens in, {used.output_tokens:,} out{paid}, {format_duration(used.seconds)}"
            if used.calls
            else ""
        )
        asked = f"{pluralize(one.calls, 'call')}, {one.accepted} accepted{cost}"
        if one.name == PERSON:
            asked = pluralize(one.calls, "answer")
        parts = [asked] if one.calls else []
        parts += [f"passed over {pluralize(count, 'time')}: {reason}" for reason, count in one.skipped.items()]
        lines.append(f"{one.name}: {'; '.join(parts)}")
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
    chosen = list(describe_choices(history.rows))
    lines += chosen[:MAX_INCIDENTS]
    if len(chosen) > MAX_INCIDENTS:
        more = f"and {len(chosen) - MAX_INCIDENTS} more selections of an agent or a model"
        lines.append(f"{more}; orchestra runs tail {history.run} --no-follow")
    recalled = Counter(tried.reused_from for row in history.rows for tried in row.attempts if tried.reused_from)
    lines += describe_tiers(usage_by_tier(history))
    lines += [describe_saving(saved) for saved in history.reused_plans]
    lines += [f"{pluralize(count, 'answer')} recalled from run {run}" for run, count in recalled.items()]
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
    took = f" in {format_duration(row.seconds)}" if row.seconds is not None else ""
    print_text(
        escape_invisible(f"{row.path}: {row.display_status}{took}{f', asked {row.name}' if row.name else ''}", keep=""),
        style="bold",
    )
    if row.choice_reason:
        print_text(escape_invisible(f"  chose {row.choice_reason}"), style="dim")
    for tried in row.attempts:
        _show_attempt(tried, tier_name(tiers, tried.tier) if tried.tier else "", escalated=row.outcome is not None)
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
    where = f" on {attempt.server}{f' ({attempt.model})' if attempt.model else ''}" if attempt.server else ""
    if attempt.reused_from:
        where, cost = "", escape_invisible(f"recalled from run {attempt.reused_from}")
    where = f", {tier}{where}" if tier else where
    if attempt.seconds is None:
        cost = "without a recorded end" if escalated else "under way"
    print_text(f"\nattempt {attempt.number}{escape_invisible(where, keep='')}: {cost}")
    if attempt.escalation_reason:
        print_text(escape_invisible(f"  {describe_model_choice(attempt)}"), style="dim")
    if attempt.seconds is not None:
        said = f"{attempt.error}: {attempt.reason}" if attempt.error else format_value(attempt.value)
        print_text(escape_invisible(said), style="yellow" if attempt.error else "")
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


MAX_TEXT_LENGTH = 20_000
"""The maximum number of characters of a text on the page; the page states how many are omitted."""
FOLD_CHARACTERS, FOLD_LINES = 1_200, 12
"""Characters and lines above which a text is folded."""
CONTEXT_CHARACTERS = 240
"""Characters of a source shown before and after cited words."""
MAX_CHOICES = 100
MAX_CLAIMS = 200
MAX_DOCUMENTS = 50
MAX_EVIDENCE = 20
MAX_ROWS = 500
MAX_WITHHELD = 100
NEAR_ROWS = 1
"""Table rows shown above and below a cited cell."""


def render_page(
    history: History,
    events: Sequence[Event],
    claims: Sequence[OutputClaim],
    status: str,
    certificates: Sequence[StoredCertificate] = (),
) -> str:
    """Renders the page of a run."""
    environment = Environment(
        auto_escape_callback=lambda _: True, undefined_behavior="strict", trim_blocks=True, lstrip_blocks=True
    )
    environment.add_template("page", files("orchestra.cli.runs").joinpath("html_page.html").read_text("utf-8"))
    return environment.render_template(
        "page",
        **_template_values(history, events, claims, status),
        guarantees=list(_guarantee_parts(history, certificates)),
    )


def _template_values(
    history: History, events: Sequence[Event], claims: Sequence[OutputClaim], status: str
) -> dict[str, Any]:
    texts = RunTexts.of(history)
    outcome = history.outcome
    supported = sum(map(is_supported, claims))
    shown = (*claims, *dropped_claims(events))
    return {
        "run": _one_line(history.run),
        "workflow": _one_line(history.workflow),
        "status": status,
        "facts": list(_run_facts(history, events)),
        "inputs": [(_one_line(name), _text_part(value)) for name, value in _named_inputs(history.inputs)],
        "answer": _text_part(outcome.value) if isinstance(outcome, ValueOutcome) else None,
        "why": ""
        if outcome is None or isinstance(outcome, ValueOutcome)
        else _one_line(f"{outcome.origin}: {outcome.reason}".removeprefix(": ")),
        "claims": [_claim_part(claim, texts) for claim in shown[:MAX_CLAIMS]],
        "claims_left": max(0, len(shown) - MAX_CLAIMS),
        "supported": supported,
        "given": sum(bool(claim.person) for claim in claims),
        "claimed": len(claims),
        "withheld": list(_withheld_parts(history.rows))[:MAX_WITHHELD],
        "plans": list(_plan_parts(events)),
        "rows": [_row_part(row) for row in history.rows[:MAX_ROWS]],
        "paid": any(row.usage.money > 0 for row in history.rows),
        "choices": [_one_line(text) for text in islice(describe_choices(history.rows), MAX_CHOICES)],
        "rows_left": max(0, len(history.rows) - MAX_ROWS),
        "digests": list(_run_digests(history, events)),
    }


def _guarantee_parts(history: History, certificates: Sequence[StoredCertificate]) -> Iterator[dict[str, Any]]:
    """The guarantees of accepted values with their certificates; once for all elements of a list."""
    nodes = dict[tuple[str, str], tuple[int, StoredCertificate | None]]()
    for path, said, one in iter_guarantees(history, certificates):
        about = re.sub(r"\[\d+\]|#\d+", "", path), said
        nodes[about] = nodes.get(about, (0, None))[0] + 1, one
    for (path, said), (count, one) in islice(nodes.items(), MAX_CHOICES):
        facts = (
            list(_guarantee_facts(one.summary))
            if one is not None
            else [("", "its certificate is missing or unreadable")]
        )
        yield {
            "node": _one_line(path) + (f" ({count} values)" if count > 1 else ""),
            "said": _one_line(said),
            "facts": [(_one_line(name), _one_line(text)) for name, text in facts],
        }


def _guarantee_facts(terms: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The facts of a certificate in words."""
    rows, seen, rest, data = terms["rows"], terms["calibrated"], terms["held_out"], terms["data"]
    delta = f", delta {terms['delta']:g}" if "delta" in terms else ""
    yield "terms", f"alpha {terms['alpha']:g}{delta}; from a score of {terms['threshold']:.6g}"
    if attempt := terms.get("attempt"):
        yield (
            "attempt",
            f"number {attempt:,} on these rows, tested at {format_percent(terms['tested_at'])} of "
            f"{format_percent(terms['delta'])}",
        )
    yield "coverage", format_percent(terms["coverage"])
    yield (
        "rows",
        f"{sum(rows.values()):,} of {data['name']}: "
        + ", ".join(f"{count:,} {part.replace('_', ' ')}" for part, count in rows.items()),
    )
    if any((left := terms.get("left_out", {})).values()):
        yield (
            "left out",
            f"{left['duplicates']:,} rows with the input of another, {left['grouped']:,} of one group with another",
        )
    yield "rows' digest", data["digest"]
    low, high = map(format_percent, rest["interval"])
    yield "calibrated", f"{seen['wrong']:,} wrong of {seen['accepted']:,} accepted"
    yield "on the rest", f"{rest['wrong']:,} wrong of {rest['accepted']:,} accepted, 95 % from {low} to {high}"
    yield "right by", ", ".join(terms["metrics"])
    yield "made", terms["created_at"]
    yield "assumed", terms["assumed"]
    yield "certificate", terms["certificate"]


def _run_facts(history: History, events: Sequence[Event]) -> Iterator[tuple[str, str]]:
    usage = history.usage
    yield "started", format_time(history.started)
    if history.seconds is not None:
        yield "took", format_duration(history.seconds)
    score = outcome_score(history.outcome, events)
    if score is not None:
        yield "confidence", f"{score:.2f}"
    yield "tokens", f"{usage.prompt_tokens:,} in, {usage.output_tokens:,} out"
    if usage.money > 0:
        yield "money", format_money(usage.money)
    yield "calls", f"{usage.calls:,}"


def _named_inputs(inputs: Any) -> Iterator[tuple[str, Any]]:
    """The inputs by name; each document of a list separately."""
    for name, value in inputs.items() if isinstance(inputs, Mapping) else [("input", inputs)]:
        documents = value if isinstance(value, list) and value and all(map(_is_document, value)) else []
        if not documents:
            yield str(name), value
        for at, one in enumerate(documents[:MAX_DOCUMENTS]):
            yield f"{name}[{at}]: {one['source']}", one["text"]
        if len(documents) > MAX_DOCUMENTS:
            yield str(name), f"and {len(documents) - MAX_DOCUMENTS} more"


def _is_document(value: Any) -> bool:
    match value:
        case {"source": str(), "text": str(), **rest}:
            return not rest
        case _:
            return False


def _text_part(value: Any) -> dict[str, Any]:
    """A value for the page: at most `MAX_TEXT_LENGTH` characters, and the number of omitted ones; JSON unless it is a
    text.
    """
    text = format_value(value)
    folded = len(text) > FOLD_CHARACTERS or text.count("\n", 0, FOLD_CHARACTERS) > FOLD_LINES
    data = not isinstance(value, str) and text[:1] in ("{", "[")
    return {
        "text": escape_invisible(text[:MAX_TEXT_LENGTH]),
        "left": max(0, len(text) - MAX_TEXT_LENGTH),
        "long": folded,
        "json": data,
    }


def _one_line(text: str, max_length: int = 2_000) -> str:
    """A text on one line."""
    return escape_invisible(" ".join(shorten(text, max_length).split()), keep="")


def _claim_part(claim: OutputClaim, texts: RunTexts) -> dict[str, Any]:
    shown = outermost_evidence(claim.evidence)
    return {
        "path": _one_line(claim.path) or "the answer",
        "value": _text_part(claim.value),
        "unsupported": _one_line(claim.unsupported),
        "person": _one_line(claim.person),
        "score": "" if claim.score is None else f"{claim.score:.2f}",
        "nodes": [_one_line(node) for node in claim.nodes[:MAX_EVIDENCE]],
        "evidence": [_evidence_part(one, texts) for one in shown[:MAX_EVIDENCE]],
        "evidence_left": max(0, len(shown) - MAX_EVIDENCE),
        "quote_shows": QUOTE_NOTE if is_supported(claim) and is_quote_only(claim) else "",
        "verdicts": [_verdict_part(one) for one in claim.verdicts[:MAX_EVIDENCE]],
    }


def _verdict_part(verdict: ClaimVerdict) -> dict[str, str]:
    score, reason = f"{verdict.score:.2f}", _one_line(verdict.reason)
    return {
        "node": _one_line(verdict.node),
        "check": _one_line(verdict.check),
        "outcome": verdict.outcome,
        "score": score,
        "reason": reason,
    }


def _evidence_part(evidence: Support, texts: RunTexts) -> dict[str, Any]:
    match evidence:
        case TextSpan():
            return _span_part(evidence, texts)
        case TableCell():
            return _table_part(evidence, texts)
        case Computation():
            operands = [
                {
                    "text": _one_line(one.text),
                    "where": "; ".join(_one_line(_format_location(place)) for place in one.places),
                }
                for one in evidence.operands
            ]
            return {
                "kind": "computation",
                "expression": _one_line(evidence.expression),
                "result": _one_line(evidence.result),
                "operands": operands,
            }
        case never:
            assert_never(never)


def _span_part(span: TextSpan, texts: RunTexts) -> dict[str, Any]:
    """Cited words within their text; alone if no text of the run contains them."""
    source = texts.get(span.where)
    before, after = "", ""
    if source is not None and span.start is not None and span.end is not None:
        begin = max(0, span.start - CONTEXT_CHARACTERS)
        before = ("…" if begin else "") + source.text[begin : span.start]
        after = source.text[span.end : span.end + CONTEXT_CHARACTERS] + (
            "…" if span.end + CONTEXT_CHARACTERS < len(source.text) else ""
        )
    return {
        "kind": "span",
        "before": escape_invisible(before),
        "quote": _text_part(span.quote),
        "after": escape_invisible(after),
        "where": _one_line(_format_location(span)),
        "found": source is not None,
    }


def _table_part(cell: TableCell, texts: RunTexts) -> dict[str, Any]:
    """A cited cell within its table: the header and neighbouring rows."""
    source = texts.get(cell.where)
    table = source.table if source is not None else ()
    first = max(1, cell.row - NEAR_ROWS)
    chosen = [0, *range(first, min(len(table), cell.row + NEAR_ROWS + 1))] if table else []
    rows = [
        {"head": at == 0, "cells": [_cell_part(text, (at, column), cell) for column, text in enumerate(table[at])]}
        for at in chosen
    ]
    return {"kind": "cell", "text": _one_line(cell.text), "where": _one_line(_format_location(cell)), "rows": rows}


def _cell_part(text: str, at: tuple[int, int], wanted: TableCell) -> dict[str, Any]:
    return {"text": _one_line(text, 200), "here": at == (wanted.row, wanted.column)}


def _format_location(place: EvidenceLocation) -> str:
    if isinstance(place, TableCell):
        named = ", ".join(filter(None, (place.row_heading, place.column_heading)))
        return f"{named + ' — ' if named else ''}row {place.row}, column {place.column}"
    at = f", characters {place.start} to {place.end}" if place.start is not None else ""
    return f"{place.source or place.where or 'a text outside of the journal'}{at}"


def _withheld_parts(rows: Sequence[NodeRow]) -> Iterator[dict[str, Any]]:
    """The rejected values, and the nodes without an output."""
    for row in rows:
        for tried in row.attempts:
            if tried.accepted is False:
                yield _withheld_part(row, f"attempt {tried.number}", tried.rejection_reason, _text_part(tried.value))
            elif tried.error:
                yield _withheld_part(row, f"attempt {tried.number}", f"{tried.error}: {tried.reason}")
        match row.outcome:
            case AbstainedOutcome(reason, by) | FailedOutcome(_, reason, by):
                told_by = by if by not in ("", row.path) else ""
                yield _withheld_part(row, row.status, f"{told_by}: {reason}" if told_by else reason)
            case _ if row.original_outcome is not None:
                yield _withheld_part(row, row.display_status, row.fallback_reason)
            case _:
                pass


def _withheld_part(row: NodeRow, what: str, why: str, value: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"node": _one_line(row.path), "what": what, "value": value, "why": _one_line(why)}


def _plan_parts(events: Sequence[Event]) -> Iterator[dict[str, Any]]:
    """The lines of each plan at the last turn of its router."""
    last = {event.node: event.draft for event in events if isinstance(event, TurnStarted) and event.draft is not None}
    for node, drafted in last.items():
        yield {
            "node": _one_line(node),
            "lines": _text_part("\n".join(drafted.lines)),
            "repaired": drafted.repaired_lines,
        }


def _row_part(row: NodeRow) -> dict[str, Any]:
    return {
        "path": _one_line(row.path),
        "depth": min(row.depth, 12),
        "name": _callee_name(row),
        "status": row.display_status,
        "time": "" if row.seconds is None else format_duration(row.seconds),
        "attempts": len(row.attempts) or "",
        "tokens_in": f"{row.usage.prompt_tokens:,}" if row.usage.prompt_tokens else "",
        "tokens_out": f"{row.usage.output_tokens:,}" if row.usage.output_tokens else "",
        "money": format_money(row.usage.money),
    }


def _callee_name(row: NodeRow) -> str:
    """The called agent or tool, and the author of an override; for a list, those of its elements."""
    said = describe_given(row.overridden_by) if row.overridden_by is not None else ""
    return (
        _one_line(", ".join(filter(None, (row.name, said))))
        if row.elements is None
        else pluralize(row.elements, "element")
    )


def _run_digests(history: History, events: Sequence[Event]) -> Iterator[tuple[str, str]]:
    """The digests of the workflow and of everything it calls, and the models that answered."""
    if history.graph:
        yield "workflow", _one_line(history.graph)
    first = events[0] if events else None
    if isinstance(first, RunStarted):
        for name, mark in first.versions.items():
            yield _one_line(name), _one_line(mark)
    if history.parent:
        yield "forked from run", _one_line(history.parent)
    models = {(tried.server, tried.model) for row in history.rows for tried in row.attempts if tried.model}
    for server, model in sorted(models):
        yield f"model on {_one_line(server)}", _one_line(model)
