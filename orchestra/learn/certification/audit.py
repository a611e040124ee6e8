"""Audits of certificates: accepted outputs from the journal, sampled by a seed, and judged by a person or by the
expected answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from orchestra.app.project import Project
from orchestra.app.snapshot_store import CERTIFICATE, CLAIMS, restore_program
from orchestra.core.errors import InputError, InputErrors, OrchestraError
from orchestra.core.events import Event, RunStarted
from orchestra.core.paths import workflow_path
from orchestra.core.protocols import NO_LIMIT, Journal, RunSummary
from orchestra.engine.replay import ReplayResult, replay
from orchestra.journal.history import History, NodeAttempt, NodeRow
from orchestra.learn.certification.labelled_answers import Correctness
from orchestra.learn.data.dataset import fingerprint
from orchestra.learn.data.jsonl import JsonLinesFormat, numbered_lines
from orchestra.learn.evaluation.evaluation import EVALUATION_PURPOSE
from orchestra.learn.evaluation.metrics import Case
from orchestra.learn.evaluation.rows import as_record
from orchestra.schema.strict_json import canonical, digest
from orchestra.verification.answer_parts import remaining_value
from orchestra.verification.certificates.audits import (
    AuditedCertificate,
    AuditState,
    AuditVerdict,
    OutputKey,
    SampledOutput,
)
from orchestra.verification.certificates.claims_file import ClaimsCertificate
from orchestra.workflows.program import CompiledNode, Program

HINT = '{"run": "01m8…", "node": "reading", "verdict": "right"}, or wrong, unclear; or "expected": {…}'


@dataclass(frozen=True, slots=True)
class AuditPeriod:
    """A time interval of run starts, in seconds since the epoch."""

    since: float = 0.0
    until: float = float("inf")

    def contains(self, run: RunSummary) -> bool:
        """Returns whether a run started in the interval."""
        return self.since <= run.started < self.until


@dataclass(slots=True)
class AcceptedOutputs:
    """Outputs that were accepted under a certificate."""

    outputs: list[SampledOutput] = field(default_factory=list)
    run_count: int = 0
    """Number of runs that started with the certificate."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Number of runs and answers that were left out, by reason."""


async def find_accepted_outputs(
    project: Project, journal: Journal, certificate: AuditedCertificate, period: AuditPeriod
) -> AcceptedOutputs:
    """Finds the outputs that were accepted under a certificate: first answers whose guarantee is in the journal, each
    with the fingerprint of its input. For a certificate of claims, answers with no kept claim are included: its
    guarantee is about all answers.
    """
    original = certificate.original
    kind = CLAIMS if isinstance(original, ClaimsCertificate) else CERTIFICATE
    name, subject, outputs = f"{kind}/{original.agent}", digest(original.to_bytes()), AcceptedOutputs()
    programs = RunPrograms(project, journal)
    withheld_answers = WithheldAnswers(programs, original) if isinstance(original, ClaimsCertificate) else None
    group = _group_input(project, certificate)
    for summary in filter(period.contains, await journal.list_runs(NO_LIMIT)):
        try:
            events = await journal.read(summary.run)
            first = events[0] if events else None
            if not isinstance(first, RunStarted) or first.versions.get(name) != subject:
                continue
            outputs.run_count += 1
            if first.options.get("purpose") == EVALUATION_PURPOSE:
                outputs.skipped["runs of an evaluation"] += 1
                continue
            history = History.of(events)
            answers = list(_certified_answers(history, original))
            if withheld_answers is not None:
                answers += await withheld_answers.in_run(first, events, history)
            fresh = [(output, attempt) for output, attempt in answers if not attempt.reused_from]
            if recalled_count := len(answers) - len(fresh):
                outputs.skipped["answers recalled from another run"] += recalled_count
            if fresh:
                agent_inputs = await programs.agent_inputs(first, events)
                for output, attempt in fresh:
                    about = _input_fingerprint(
                        agent_inputs.get((output.node, attempt.number)), first, output.node, group
                    )
                    outputs.outputs.append(msgspec.structs.replace(output, input_fingerprint=about))
        except OrchestraError:
            outputs.skipped["runs that cannot be read any more"] += 1
    return outputs


def _certified_answers(
    history: History, certificate: AuditedCertificate
) -> Iterator[tuple[SampledOutput, NodeAttempt]]:
    """Returns the answers of a run's nodes that were accepted with the guarantee of the certificate."""
    for row in history.rows:
        for attempt in row.attempts:
            if attempt.accepted and attempt.guarantee == certificate.guarantee and attempt.name == certificate.agent:
                yield SampledOutput(history.run, row.path, digest(canonical(attempt.value)), attempt.score), attempt


def _group_input(project: Project, certificate: AuditedCertificate) -> str:
    """Returns the input that defines the groups of a certificate's rows; empty if they have no groups."""
    data = certificate.original.data
    if not data.grouped:
        return ""
    card = project.registry.cards.get(certificate.agent)
    return data.group or (card.evidence if card is not None and card.evidence else "")


def _input_fingerprint(inputs: Mapping[str, Any] | None, first: RunStarted, node: str, group: str) -> str:
    """Returns the fingerprint of an answer: of its input, or of the shared input of its group. If replay does not reach
    the call, the fingerprint of the node and the inputs of the run.
    """
    if inputs is None:
        return fingerprint({"node": workflow_path(node), "inputs": first.inputs})
    return fingerprint(inputs[group]) if group in inputs else fingerprint(inputs)


class RunPrograms:
    """Compiled workflows of runs, restored from their snapshots; each is compiled once."""

    def __init__(self, project: Project, journal: Journal) -> None:
        self._project, self._journal = project, journal
        self._cache: dict[bytes, Program] = {}

    async def program_of(self, first: RunStarted) -> Program:
        """Returns the program of a run.

        Raises:
            OrchestraError: The snapshot cannot be restored.
        """
        key = canonical([first.graph, dict(first.versions)])
        if key not in self._cache:
            self._cache[key] = await restore_program(self._project, self._journal, first, will_call=False)
        return self._cache[key]

    async def agent_inputs(
        self, first: RunStarted, events: Sequence[Event]
    ) -> dict[tuple[str, int], Mapping[str, Any]]:
        """Returns the inputs of a run's agent calls by node and attempt, as far as replay reaches."""
        try:
            program = await self.program_of(first)
        except OrchestraError:
            return {}
        return {key: call.inputs for key, (call, _) in replay(program, events).calls.items()}


class WithheldAnswers:
    """Answers of which a node with a claims certificate kept nothing. The journal has no guarantee for them; the run's
    workflow identifies the nodes.
    """

    def __init__(self, programs: RunPrograms, certificate: ClaimsCertificate) -> None:
        self._programs, self._certificate = programs, certificate

    async def in_run(
        self, first: RunStarted, events: Sequence[Event], history: History
    ) -> list[tuple[SampledOutput, NodeAttempt]]:
        """Returns the withheld answers of a run."""
        rejections = [(row, attempt) for row in history.rows if (attempt := self._rejected_attempt(row)) is not None]
        if not rejections:
            return []
        by = _NodeCertificates(await self._programs.program_of(first), events)
        return [
            (SampledOutput(history.run, row.path, digest(canonical(attempt.value)), withheld=True), attempt)
            for row, attempt in rejections
            if by.digest_at(row.path) == self._certificate.digest
        ]

    def _rejected_attempt(self, row: NodeRow) -> NodeAttempt | None:
        """Returns the first answer of the judged agent in a row if it was not accepted."""
        rejected_attempt = next((candidate for candidate in row.attempts if candidate.accepted is not None), None)
        if (
            rejected_attempt is None
            or rejected_attempt.accepted
            or rejected_attempt.tier
            or rejected_attempt.name != self._certificate.agent
        ):
            return None
        return rejected_attempt


class _NodeCertificates:
    """The certificates of the nodes of a run."""

    def __init__(self, program: Program, events: Sequence[Event]) -> None:
        self._program, self._events = program, events

    def digest_at(self, path: str) -> str:
        """Returns the digest of the certificate of a node; empty if it has none. Nodes of a plan are in the run and not
        in the workflow.
        """
        if (node := node_at(self._program, path)) is None:
            return self._replayed.certificates.get(path, "")
        certificate = node.acceptance.certificate if node.acceptance is not None else None
        return certificate.digest if certificate is not None else ""

    @cached_property
    def _replayed(self) -> ReplayResult:
        return replay(self._program, self._events)


def node_at(program: Program, path: str) -> CompiledNode | None:
    """Returns the program node at a path in a run, through elements, turns and bodies; None if there is none, and for
    steps of a plan.
    """
    matching_node: CompiledNode | None = None
    inside: Program | None = program
    for name in workflow_path(path).split("/"):
        matching_node = next((node for node in inside.nodes if node.name == name), None) if inside is not None else None
        inside = matching_node.body if matching_node is not None else None
    return matching_node


@dataclass(frozen=True, slots=True)
class AuditSample:
    """Outputs to audit."""

    outputs: Sequence[SampledOutput]
    population: int
    """Number of outputs that could be drawn: one for each input or group that was not sampled before."""
    duplicates: int
    """Number of further outputs with the input or group of an output in the population."""


def draw_sample(found: AcceptedOutputs, state: AuditState, count: int, seed: int) -> AuditSample:
    """Draws outputs, at most one for each input or group: a verdict on a copy adds no independent evidence.

    The order follows from the seed and the fingerprints of the inputs. It does not depend on the other outputs, so
    drawing again gives no second chance.
    """
    abouts = {output.key: output.input_fingerprint for output in found.outputs}
    input_fingerprints = {output.input_fingerprint or abouts.get(unit) for unit, output in state.sampled.items()}
    fresh = [output for output in found.outputs if output.key not in state.sampled]
    sampled_outputs: dict[Any, SampledOutput] = {}
    for output in sorted(fresh, key=lambda output: digest(canonical([seed, output.run, output.node]))):
        if output.input_fingerprint not in input_fingerprints:
            sampled_outputs.setdefault(output.input_fingerprint, output)
    ordered_outputs = [
        sampled_outputs[about] for about in sorted(sampled_outputs, key=lambda about: digest(canonical([seed, about])))
    ]
    return AuditSample(ordered_outputs[:count], len(ordered_outputs), len(fresh) - len(ordered_outputs))


@dataclass(frozen=True, slots=True)
class AuditView:
    """A sampled output as an auditor sees it."""

    output: SampledOutput
    inputs: Mapping[str, Any] | None
    """The agent's inputs; None if replay does not reach the call."""
    value: Any
    """The accepted value, without dropped parts."""
    dropped_parts: int = 0
    """Number of dropped parts."""


async def view_output(project: Project, journal: Journal, output: SampledOutput) -> AuditView | None:
    """Returns a sampled output with the inputs of its agent; None if its run is gone or has another output."""
    events = await journal.read(output.run)
    row = History.of(events).row(output.node) if events else None
    attempt = (
        next((candidate for candidate in row.attempts if candidate.accepted and candidate.guarantee), None)
        if row is not None
        else None
    )
    first = events[0] if events else None
    if attempt is None or not isinstance(first, RunStarted) or digest(canonical(attempt.value)) != output.digest:
        return None
    value, dropped_count = (
        remaining_value(attempt.value, attempt.verdicts),
        sum(len(verdict.dropped) for verdict in attempt.verdicts),
    )
    try:
        program = await restore_program(project, journal, first, will_call=False)
    except OrchestraError:
        return AuditView(output, None, value, dropped_count)
    call = replay(program, events).calls.get((output.node, attempt.number))
    return AuditView(output, call[0].inputs if call is not None else None, value, dropped_count)


class AuditLine(msgspec.Struct, frozen=True):
    """A line of a file of verdicts. Other keys, such as the output, are ignored."""

    run: str
    node: str
    verdict: str | None = None
    expected: Any = msgspec.UNSET


_LINE_FORMAT = JsonLinesFormat(AuditLine, "V021", "verdict", HINT)


async def read_verdicts(
    path: Path, state: AuditState, journal: Journal, project: Project, correctness: Callable[[], Correctness]
) -> tuple[list[tuple[SampledOutput, AuditVerdict]], int]:
    """Reads the verdicts on sampled outputs, in the order of sampling, and the number of lines that repeat recorded
    verdicts.

    Args:
        correctness: Returns the function that decides whether an output is correct, for lines with an `expected`.

    Raises:
        InputErrors: V021 with all invalid lines; nothing is recorded then.
    """
    errors, verdicts, again = list[InputError](), dict[OutputKey, AuditVerdict](), 0
    for location, text in numbered_lines(path, _LINE_FORMAT.read_bytes(path)):
        try:
            label = _LINE_FORMAT.parse_line(text, location)
            if (label.run, label.node) in verdicts:
                raise _line_error(f"two lines are about {label.node} of run {label.run}")
            verdict = await _resolve_verdict(label, state, journal, project, correctness)
            audit_event = state.audits.get((label.run, label.node))
            if audit_event is None:
                verdicts[label.run, label.node] = verdict
            elif audit_event.verdict == verdict:
                again += 1
            else:
                by = f" by {audit_event.by}" if audit_event.by else ""
                raise _line_error(
                    f"the recorded verdict on {label.node} of run {label.run} is `{audit_event.verdict}`{by}, "
                    f"{audit_event.at}, "
                    f"and this line has {verdict}"
                )
        except InputError as error:
            errors.append(InputError(error.code, error.message, location=location, hint=error.hint))
    if errors:
        raise InputErrors(errors)
    return [(output, verdicts[unit]) for unit, output in state.sampled.items() if unit in verdicts], again


async def _resolve_verdict(
    label: AuditLine, state: AuditState, journal: Journal, project: Project, correctness: Callable[[], Correctness]
) -> AuditVerdict:
    output = state.sampled.get((label.run, label.node))
    if output is None:
        exists = bool(await journal.read(label.run))
        problem = (
            f"{label.node} of run {label.run} was not sampled" if exists else f"run {label.run} is not in the journal"
        )
        raise InputError(
            "V021", f"{problem}: only sampled outputs can be audited", hint="orchestra certify AGENT --watch --audit 20"
        )
    match label.verdict:
        case "right" | "wrong" | "unclear":
            return label.verdict
        case None if label.expected is not msgspec.UNSET:
            view = await view_output(project, journal, output)
            if view is None:
                raise _line_error(
                    f"run {label.run} is gone, so its output cannot be compared with the expected one",
                    "state a verdict",
                )
            good = correctness().is_correct(Case(as_record(label.expected), as_record(view.value)))
            return "unclear" if good is None else "right" if good else "wrong"
        case None:
            raise _line_error("it has neither `verdict` nor `expected`")
        case _:
            raise _line_error(f"the verdict is {label.verdict!r}, and must be right, wrong or unclear")


def _line_error(message: str, hint: str = HINT) -> InputError:
    return InputError("V021", message, hint=hint)
