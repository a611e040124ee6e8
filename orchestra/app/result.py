"""Results of runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, cast

from typing_extensions import TypeVar

from orchestra.core import outcomes
from orchestra.core.errors import Abstained, BudgetExceeded, OrchestraError, RunFailed
from orchestra.core.events import NO_USAGE, AttemptFinished, Event, NodeFinished, OutputJudged, RunFinished, Usage
from orchestra.core.outcomes import Evidence, Outcome
from orchestra.core.paths import is_inside

if TYPE_CHECKING:
    from orchestra.app.claims.claims import OutputClaim
    from orchestra.app.html.content import RunContent

R = TypeVar("R", covariant=True, default=Any)
Status: TypeAlias = Literal["done", "failed", "abstained", "budget", "cancelled"]


def identity(value: Any) -> Any:
    """Returns the output unchanged, as plain JSON: of a run whose workflow is only known as stored."""
    return value


@dataclass(frozen=True)
class Result(Generic[R]):
    """The result of a run. `output` has the workflow's return type."""

    run: str
    """The id of the run, for `orchestra runs show ID`."""
    status: Status
    outcome: Outcome
    usage: Usage = NO_USAGE
    events: Sequence[Event] = field(default=(), repr=False)
    """The run's events."""
    decode: Callable[[Any], Any] = field(default=identity, repr=False)
    """Converts the JSON output to the typed output."""
    workflows: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """The stored workflows of the run: its own under an empty name, called ones under `workflow/NAME`."""

    @cached_property
    def usage_by_node(self) -> Mapping[str, Usage]:
        """The usage of each node, by path."""
        usage: dict[str, Usage] = {}
        for event in self.events:
            if isinstance(event, AttemptFinished):
                usage[event.node] = usage.get(event.node, NO_USAGE) + event.usage
        return usage

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        """The evidence of accepted outputs, in the order of acceptance."""
        judgements = [event for event in self.events if isinstance(event, OutputJudged) and event.accepted]
        return tuple(evidence for event in judgements for verdict in event.verdicts for evidence in verdict.evidence)

    @cached_property
    def guarantees(self) -> Mapping[str, str]:
        """The guarantees that certificates give for accepted values, by the path of the node. Elements under `each`
        have their own.
        """
        return {
            event.node: event.guarantee for event in self.events if isinstance(event, OutputJudged) and event.guarantee
        }

    @cached_property
    def left_out(self) -> Mapping[str, str]:
        """The elements that failed and are missing in their lists, by path, with the reason."""
        failed_outcomes: dict[str, outcomes.FailedOutcome] = {}
        for event in self.events:
            if isinstance(event, NodeFinished) and isinstance(event.outcome, outcomes.FailedOutcome):
                failed_outcomes[event.node] = event.outcome
        elements = {
            path: f"{failed_outcome.code}: {failed_outcome.reason}"
            for path, failed_outcome in failed_outcomes.items()
            if path.endswith("]")
        }
        # An element of a list that failed as a whole is not left out of anything.
        return {
            path: reason
            for path, reason in elements.items()
            if not any(path[:at] in failed_outcomes for at, sign in enumerate(path) if sign == "[")
        }

    @cached_property
    def claims(self) -> tuple[OutputClaim, ...]:
        """The claims of the output, part by part: each with its evidence, its verdicts and its score."""
        from orchestra.app.claims.claims import extract_claims

        return extract_claims(self.events, self.workflows)

    @cached_property
    def dropped(self) -> tuple[OutputClaim, ...]:
        """What nodes with back-off removed from their answers, each with the reason and its score. `path` is the path
        in the node's answer.
        """
        from orchestra.app.claims.claims import dropped_claims

        return dropped_claims(self.events)

    @property
    def unsupported(self) -> tuple[OutputClaim, ...]:
        """The claims without evidence or without a passed check: `OutputClaim.unsupported` is the reason. If nothing
        was checked, all claims. Those that a person gave are not among them. Dropped ones come last.
        """
        return (*(claim for claim in self.claims if claim.unsupported), *self.dropped)

    @property
    def output(self) -> R:
        """The output. Raises `Abstained`, `BudgetExceeded` or `RunFailed` if there is none."""
        if isinstance(self.outcome, outcomes.ValueOutcome):
            return cast(R, self.decode(self.outcome.value))
        error = self.error
        hint = f"a fault of Orchestra; please report it with what this prints: orchestra runs show {self.run} --json"
        raise error or RunFailed("E002", f"run {self.run} has neither an output nor an error", hint=hint)

    @property
    def value(self) -> Any:
        """The output as plain JSON; None if there is none."""
        return self.outcome.value if isinstance(self.outcome, outcomes.ValueOutcome) else None

    @property
    def confidence(self) -> float | None:
        """The score of the output in [0, 1], if checks or its producer gave one: of an agent's answer the lowest of its
        verdicts and its confidence; of a withheld output the score that was too low, and 0 if a check failed. What a
        person gave does not lower it.
        """
        return outcome_score(self.outcome, self.events)

    @property
    def error(self) -> OrchestraError | None:
        """Why there is no output; None if there is one."""
        see = f"orchestra runs show {self.run}"
        match self.outcome:
            case outcomes.ValueOutcome():
                return None
            case outcomes.FailedOutcome(code, reason, by, hint):
                kind = BudgetExceeded if self.status == "budget" else RunFailed
                return kind(code, f"{by}: {reason}" if by else reason, hint=hint or see).with_run(
                    self.run, by, self._error_frames(code, by)
                )
            case outcomes.AbstainedOutcome(reason, by):
                return Abstained("E010", f"withheld: {f'{by}: ' if by else ''}{reason}", hint=see).with_run(
                    self.run, by
                )
            case outcomes.SkippedOutcome(reason, by):
                return Abstained("E011", f"skipped: {f'{by}: ' if by else ''}{reason}", hint=see).with_run(self.run, by)

    def _repr_html_(self) -> str:
        """The result in a notebook: the answer, its evidence with the verdicts, its guarantees and its cost."""
        from orchestra.app.html.render import render_result

        return render_result(run_content(self))

    def _error_frames(self, code: str, node: str) -> tuple[str, ...]:
        """Returns where the tool's own code raised that made the run fail."""
        finish_events = (
            event
            for event in reversed(self.events)
            if isinstance(event, AttemptFinished) and event.error == code and event.frames
        )
        return next((event.frames for event in finish_events if event.node == node or is_inside(event.node, node)), ())


def run_content(result: Result[Any]) -> RunContent:
    """Returns what HTML shows of a result."""
    from orchestra.app.html.content import RunContent

    return RunContent(
        result.events,
        result.status,
        result.claims,
        result.dropped,
        result.confidence,
        left_out=result.left_out,
    )


def outcome_score(outcome: Outcome | None, events: Sequence[Event]) -> float | None:
    """Returns the score of an outcome. If the producer's confidence was too low, its check `confidence` fails with
    score 0; this returns the confidence, which a lower threshold would have accepted. Passed checks do not raise the
    confidence.
    """
    if not isinstance(outcome, outcomes.AbstainedOutcome):
        return _cap_by_confidence(outcome.score, events) if isinstance(outcome, outcomes.ValueOutcome) else None
    judgement = next(
        (event for event in reversed(events) if isinstance(event, OutputJudged) and event.node == outcome.origin), None
    )
    if judgement is None or outcome.score != 0:
        return outcome.score
    if any(verdict.check != "confidence" for verdict in judgement.verdicts if verdict.outcome != "pass"):
        return outcome.score
    attempts = (event for event in events if isinstance(event, AttemptFinished) and event.node == judgement.node)
    sure = next((event.confidence for event in attempts if event.attempt == judgement.attempt), None)
    scores = [verdict.score for verdict in judgement.verdicts if verdict.outcome == "pass"]
    return outcome.score if sure is None else min([sure, *scores])


def _cap_by_confidence(score: float | None, events: Sequence[Event]) -> float | None:
    """Caps the score of a value by the confidence of its producer, if the run judged one value. A combination of checks
    already includes the confidence.
    """
    judgements = [event for event in events if isinstance(event, OutputJudged)]
    if score is None or not judgements or any(event.node != judgements[0].node for event in judgements):
        return score
    last = judgements[-1]
    if last.score != score or score != min((verdict.score for verdict in last.verdicts), default=None):
        return score
    attempts = (event for event in events if isinstance(event, AttemptFinished) and event.node == last.node)
    sure = next((event.confidence for event in attempts if event.attempt == last.attempt), None)
    return score if sure is None else min(score, sure)


def build_result(
    finished: RunFinished,
    events: Sequence[Event],
    run: str,
    decode: Callable[[Any], Any],
    workflows: Mapping[str, bytes],
) -> Result[Any]:
    """Builds the result of a run from its events."""
    return Result(run, cast(Status, finished.status), finished.outcome, finished.usage, events, decode, workflows)
