"""Auditing: accepted outputs of a certified agent, found in the journal, drawn by a seed, and judged by a person or by what is expected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from orchestra.app.project import Project
from orchestra.app.snapshot_store import CERTIFICATE, CLAIMS, restored
from orchestra.core.errors import InputError, InputErrors, OrchestraError
from orchestra.core.events import Event, RunStarted
from orchestra.core.paths import without_numbers
from orchestra.core.protocols import EVERY, Journal, RunSummary
from orchestra.engine.replay import Replayed, replay
from orchestra.journal.history import Attempt, History, Row
from orchestra.learn.certification.labelled_answers import Rightness
from orchestra.learn.data.deduplication import mark
from orchestra.learn.data.jsonl import Lines, places
from orchestra.learn.evaluation.evaluation import EVALUATION
from orchestra.learn.evaluation.metrics import Case
from orchestra.learn.evaluation.rows import as_record
from orchestra.schema.strict_json import canonical, digest
from orchestra.verification.answer_parts import rest
from orchestra.verification.certificates.audits import Output, Said, Unit, Watch, Watched
from orchestra.verification.certificates.claims_file import ClaimsCertificate
from orchestra.workflows.program import CompiledNode, Program

HINT = '{"run": "01m8…", "node": "reading", "verdict": "right"}, or wrong, unclear; or "expected": {…}'


@dataclass(frozen=True, slots=True)
class Wanted:
    """Runs that began in this time; seconds since the epoch."""

    since: float = 0.0
    until: float = float("inf")

    def has(self, run: RunSummary) -> bool:
        """Whether a run is one of them."""
        return self.since <= run.started < self.until


@dataclass(slots=True)
class Accepted:
    """Outputs that were accepted under a certificate."""

    found: list[Output] = field(default_factory=list)
    runs: int = 0
    """Runs that began with the certificate."""
    passed: Counter[str] = field(default_factory=Counter)
    """Runs, and answers, that were left out, by reason."""


async def accepted(project: Project, journal: Journal, certificate: Watched, wanted: Wanted) -> Accepted:
    """The outputs that were accepted under a certificate, as it was made: first answers, whose promise stands in the journal, each with
    the mark of what it is about. Of a certificate of claims those of which nothing was kept, too: its promise is about all answers."""
    original = certificate.original
    kind = CLAIMS if isinstance(original, ClaimsCertificate) else CERTIFICATE
    name, written, made = f"{kind}/{original.agent}", digest(original.written()), Accepted()
    programs = Programs(project, journal)
    withheld = Withheld(programs, original) if isinstance(original, ClaimsCertificate) else None
    group = _group(project, certificate)
    for summary in filter(wanted.has, await journal.runs(EVERY)):
        try:
            events = await journal.read(summary.run)
            first = events[0] if events else None
            if not isinstance(first, RunStarted) or first.versions.get(name) != written:
                continue
            made.runs += 1
            if first.options.get("purpose") == EVALUATION:
                made.passed["runs of an evaluation"] += 1
                continue
            history = History.of(events)
            found = list(_promised(history, original))
            if withheld is not None:
                found += await withheld.of(first, events, history)
            fresh = [(output, attempt) for output, attempt in found if not attempt.recalled]
            if recalled := len(found) - len(fresh):
                made.passed["answers recalled from another run"] += recalled
            if fresh:
                asked = await programs.asked(first, events)
                for output, attempt in fresh:
                    about = _about(asked.get((output.node, attempt.number)), first, output.node, group)
                    made.found.append(msgspec.structs.replace(output, about=about))
        except OrchestraError:
            made.passed["runs that cannot be read any more"] += 1
    return made


def _promised(history: History, certificate: Watched) -> Iterator[tuple[Output, Attempt]]:
    """The answers of a run's nodes that were accepted with the certificate's promise."""
    for row in history.rows:
        for attempt in row.attempts:
            if attempt.accepted and attempt.promise == certificate.promise and attempt.name == certificate.agent:
                yield Output(history.run, row.path, digest(canonical(attempt.value)), attempt.score), attempt


def _group(project: Project, certificate: Watched) -> str:
    """The input that is one for all rows of a group of those that made a certificate; empty where its rows had no groups."""
    data = certificate.original.data
    if not data.grouped:
        return ""
    card = project.registry.cards.get(certificate.agent)
    return data.group or (card.evidence if card is not None and card.evidence else "")


def _about(inputs: Mapping[str, Any] | None, first: RunStarted, node: str, group: str) -> str:
    """The mark of what an answer is about: of its input, or of what its group has in common; where today's engine does not follow the run
    as far, of what that was given."""
    if inputs is None:
        return mark({"node": without_numbers(node), "inputs": first.inputs})
    return mark(inputs[group]) if group in inputs else mark(inputs)


class Programs:
    """The workflows of runs, as these stored them, each compiled once."""

    def __init__(self, project: Project, journal: Journal) -> None:
        self._project, self._journal = project, journal
        self._known: dict[bytes, Program] = {}

    async def of(self, first: RunStarted) -> Program:
        """That of a run. Raises `OrchestraError` where it cannot be restored."""
        key = canonical([first.graph, dict(first.versions)])
        if key not in self._known:
            self._known[key] = await restored(self._project, self._journal, first, asking=False)
        return self._known[key]

    async def asked(self, first: RunStarted, events: Sequence[Event]) -> dict[tuple[str, int], Mapping[str, Any]]:
        """What a run's agents were asked, by node and attempt, as far as today's engine follows it."""
        try:
            program = await self.of(first)
        except OrchestraError:
            return {}
        return {key: call.inputs for key, (call, _) in replay(program, events).calls.items()}


class Withheld:
    """Answers of which a node that keeps parts by a certificate kept nothing. The journal has no promise of them, so the run's own workflow
    says which nodes these are."""

    def __init__(self, programs: Programs, certificate: ClaimsCertificate) -> None:
        self._programs, self._certificate = programs, certificate

    async def of(self, first: RunStarted, events: Sequence[Event], history: History) -> list[tuple[Output, Attempt]]:
        """Those of a run."""
        found = [(row, attempt) for row in history.rows if (attempt := self._refused(row)) is not None]
        if not found:
            return []
        by = _Judges(await self._programs.of(first), events)
        return [
            (Output(history.run, row.path, digest(canonical(attempt.value)), withheld=True), attempt)
            for row, attempt in found
            if by.certificate(row.path) == self._certificate.digest
        ]

    def _refused(self, row: Row) -> Attempt | None:
        """A row's first answer of the agent that was judged, where it was not accepted."""
        judged = next((one for one in row.attempts if one.accepted is not None), None)
        if judged is None or judged.accepted or judged.tier or judged.name != self._certificate.agent:
            return None
        return judged


class _Judges:
    """By which certificates the values of a run's nodes were judged."""

    def __init__(self, program: Program, events: Sequence[Event]) -> None:
        self._program, self._events = program, events

    def certificate(self, path: str) -> str:
        """The digest of the certificate of a node; empty where it has none. What a plan calls stands in no workflow, but in the run."""
        if (node := node_at(self._program, path)) is None:
            return self._replayed.certified.get(path, "")
        certificate = node.acceptance.certificate if node.acceptance is not None else None
        return certificate.digest if certificate is not None else ""

    @cached_property
    def _replayed(self) -> Replayed:
        return replay(self._program, self._events)


def node_at(program: Program, path: str) -> CompiledNode | None:
    """The node of a program that a path in a run leads to, through elements, turns and bodies; None where it has none,
    and for the steps of a plan."""
    found: CompiledNode | None = None
    inside: Program | None = program
    for name in without_numbers(path).split("/"):
        found = next((node for node in inside.nodes if node.name == name), None) if inside is not None else None
        inside = found.body if found is not None else None
    return found


@dataclass(frozen=True, slots=True)
class Draw:
    """Outputs that are to be audited."""

    outputs: Sequence[Output]
    population: int
    """Among how many: one of each input, or group, of which none was drawn before."""
    copies: int
    """How many others there were, with the input or of the group of one that was drawn or can be."""


def draw(found: Accepted, watch: Watch, count: int, seed: int) -> Draw:
    """So many outputs, one of each input, or group: a verdict on a copy would be the same bet once more. Which ones follows from the seed
    and what they are about: each keeps its place in the order whatever else is there, so that drawing again is no second chance."""
    abouts = {output.unit: output.about for output in found.found}
    known = {output.about or abouts.get(unit) for unit, output in watch.drawn.items()}
    fresh = [output for output in found.found if output.unit not in watch.drawn]
    each: dict[Any, Output] = {}
    for output in sorted(fresh, key=lambda output: digest(canonical([seed, output.run, output.node]))):
        if output.about not in known:
            each.setdefault(output.about, output)
    ordered = [each[about] for about in sorted(each, key=lambda about: digest(canonical([seed, about])))]
    return Draw(ordered[:count], len(ordered), len(fresh) - len(ordered))


@dataclass(frozen=True, slots=True)
class Shown:
    """What somebody who audits looks at."""

    output: Output
    inputs: Mapping[str, Any] | None
    """None where today's engine does not follow the run as far as its call."""
    value: Any
    """What was accepted: of an answer of which parts were dropped, the others."""
    dropped: int = 0
    """How many parts were."""


async def shown(project: Project, journal: Journal, output: Output) -> Shown | None:
    """A drawn output with what its agent was asked; None where its run is gone, or is not what was drawn."""
    events = await journal.read(output.run)
    row = History.of(events).row(output.node) if events else None
    attempt = next((one for one in row.attempts if one.accepted and one.promise), None) if row is not None else None
    first = events[0] if events else None
    if attempt is None or not isinstance(first, RunStarted) or digest(canonical(attempt.value)) != output.digest:
        return None
    value, dropped = rest(attempt.value, attempt.verdicts), sum(len(verdict.dropped) for verdict in attempt.verdicts)
    try:
        program = await restored(project, journal, first, asking=False)
    except OrchestraError:
        return Shown(output, None, value, dropped)
    call = replay(program, events).calls.get((output.node, attempt.number))
    return Shown(output, call[0].inputs if call is not None else None, value, dropped)


class Label(msgspec.Struct, frozen=True):
    """A line of a file of verdicts. Whatever else stands in it, such as the output that it is about, is passed over."""

    run: str
    node: str
    verdict: str | None = None
    expected: Any = msgspec.UNSET


_LINES = Lines(Label, "V021", "verdict", HINT)


async def labelled(
    path: Path, watch: Watch, journal: Journal, project: Project, rightness: Callable[[], Rightness]
) -> tuple[list[tuple[Output, Said]], int]:
    """The verdicts of a file on drawn outputs, in the order of drawing, and how many of its lines said again what is on record.

    `rightness` tells what is right of lines with an `expected`. Raises `InputErrors` V021 with all lines that are wrong: nothing is
    recorded then.
    """
    faults, said, again = list[InputError](), dict[Unit, Said](), 0
    for place, text in places(path, _LINES.bytes_of(path)):
        try:
            label = _LINES.row(text, place)
            if (label.run, label.node) in said:
                raise _fault(f"two lines are about {label.node} of run {label.run}")
            verdict = await _verdict(label, watch, journal, project, rightness)
            known = watch.audits.get((label.run, label.node))
            if known is None:
                said[label.run, label.node] = verdict
            elif known.said == verdict:
                again += 1
            else:
                by = f" by {known.by}" if known.by else ""
                raise _fault(f"{label.node} of run {label.run} was found {known.said}{by} on {known.at}, and this line says {verdict}")
        except InputError as error:
            faults.append(InputError(error.code, error.message, place=place, hint=error.hint))
    if faults:
        raise InputErrors(faults)
    return [(output, said[unit]) for unit, output in watch.drawn.items() if unit in said], again


async def _verdict(label: Label, watch: Watch, journal: Journal, project: Project, rightness: Callable[[], Rightness]) -> Said:
    output = watch.drawn.get((label.run, label.node))
    if output is None:
        there = bool(await journal.read(label.run))
        what = f"{label.node} of run {label.run} was not drawn" if there else f"run {label.run} is not in the journal"
        raise InputError("V021", f"{what}: audits are of drawn outputs alone", hint="orchestra certify AGENT --watch --audit 20")
    match label.verdict:
        case "right" | "wrong" | "unclear":
            return label.verdict
        case None if label.expected is not msgspec.UNSET:
            found = await shown(project, journal, output)
            if found is None:
                raise _fault(f"run {label.run} is gone, so nobody can hold its output against what is expected", "state a verdict")
            good = rightness().of(Case(as_record(label.expected), as_record(found.value)))
            return "unclear" if good is None else "right" if good else "wrong"
        case None:
            raise _fault("it says neither `verdict` nor `expected`")
        case _:
            raise _fault(f"the verdict is {label.verdict!r}, and must be right, wrong or unclear")


def _fault(why: str, hint: str = HINT) -> InputError:
    return InputError("V021", why, hint=hint)
