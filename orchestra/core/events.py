"""The events of a run: a closed union, version 2.

The state of a run is a fold of its events. `seq` counts 1, 2, 3, … without gaps. `at` is wall-clock time in seconds
since the epoch. `node` is a path (`orchestra.core.paths`). Events are msgspec structs: creating one takes a tenth of a
microsecond, and a strict decoder rejects unknown types and fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from orchestra.core.labels import Label
from orchestra.core.outcomes import Evidence, Outcome
from orchestra.core.paths import format_path

VERSION = 2

# `gc=False`, here and in protocols.py and outcomes.py: these structs hold JSON and other such structs, so they cannot
# form reference cycles. Python's cycle collector took 0.25 s of the 0.53 s of `python -m bench.idle ours`.


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """Cost of one or more calls: tokens as counted by the server, and wall-clock seconds."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    seconds: float = 0.0
    resends: int = 0
    """Requests that reached no model (refused, 429, 503) and that the fleet sent again."""
    money: float = 0.0
    """In the currency of the fleet's prices; 0 for a server without a price."""
    estimated_tokens: int = 0
    """Tokens that no server counted, included in the other counts. An interrupted answer counts as its reservation.
    """

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.calls + other.calls,
            self.seconds + other.seconds,
            self.resends + other.resends,
            self.money + other.money,
            self.estimated_tokens + other.estimated_tokens,
        )


NO_USAGE = Usage()


class DroppedPart(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A part of a value that was removed because the evidence does not support it: a list element, or a sentence of a
    text.
    """

    steps: tuple[str | int, ...]
    """Path to the list element, or to the text that contains the sentence."""
    text: str
    """The content of the part."""
    reason: str
    score: float | None = None
    """Probability in [0, 1] that the evidence supports the part; None if it is unknown."""
    start: int | None = None
    """For a sentence: its start in the text, in characters."""
    end: int | None = None

    @property
    def path(self) -> str:
        """The path in display form: `items[1]`."""
        return format_path(self.steps)


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The result of one check. `outcome` is `pass`, `fail` or `unknown`; `unknown` never passes."""

    check: str
    outcome: str
    score: float
    reason: str = ""
    deterministic: bool = True
    evidence: tuple[Evidence, ...] = ()
    parts: tuple[Verdict, ...] = ()
    """For combined checks: the verdicts of the checks that ran."""
    dropped: tuple[DroppedPart, ...] = ()
    """Parts of the value that did not pass and were removed. The verdict is about the remaining value."""


class _Event(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    gc=False,
    tag_field="type",
):
    seq: int
    at: float


class OverrideSource(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """The person who set the value of a step. No worker produced it and no check accepted it."""

    by: str = ""
    run: str = ""
    """The run in which the value was set, if it is another run."""


class Override(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A value that a person sets for a step before the run starts."""

    value: Any
    source: OverrideSource = OverrideSource()
    question_digest: str = ""
    """For an answer in the parent run of a fork: the digest of its question. The answer applies if the same question is
    asked again.
    """
    requires_all: bool = False
    """Whether the value is a list that must have all elements. Older versions accepted lists with missing elements, and
    such runs keep them.
    """


class RunStarted(_Event, tag="run_started", frozen=True, kw_only=True):
    """The first event: the workflow and its inputs. `graph` is the digest of the frozen workflow, stored as a blob."""

    run: str
    workflow: str
    graph: str
    inputs: Any
    label: Label = "internal"
    versions: dict[str, str] = {}
    """Digests of agent cards, tool contracts and called workflows by name, stored as blobs. A resumed run uses these
    versions.
    """
    parent: str = ""
    """The run that this run is a fork of."""
    options: dict[str, Any] = {}
    """Settings besides the inputs that a resumed run needs: `budget` and `memo`; `purpose`, if it is not user work;
    `tags`; and `trace`, the W3C `traceparent` of the caller.
    """
    tiers: tuple[str, ...] = ()
    """Names of the larger models of the fleet, in escalation order. If it is empty, there may still be one larger
    model: the engine calls it once, and the fleet reports whether it exists.
    """
    overrides: dict[str, Override] | None = None
    """Values set by a person, by path of the step. No call is made for such a step. None for most runs."""
    plan_only: bool = False
    """Whether the run ends when the plan of its request is accepted. Its output is the text of the plan."""

    @property
    def tags(self) -> dict[str, str]:
        """The tags of the run. Malformed tags, of damaged or other versions, are left out."""
        tags = self.options.get("tags")
        return {name: value for name, value in tags.items() if isinstance(value, str)} if isinstance(tags, dict) else {}


def tier_name(tiers: tuple[str, ...], tier: int) -> str:
    """Returns the fleet's name of a larger model, from 1; 0 is the agent's own model."""
    return "its own model" if tier < 1 else tiers[tier - 1] if tier <= len(tiers) else "the larger model"


class RunResumed(_Event, tag="run_resumed", frozen=True, kw_only=True):
    """A process took over the run under this lease epoch. Open attempts are repeated, or a person is asked."""

    epoch: int
    by: str = ""
    idle_seconds: float = 0.0
    """Seconds since the previous event in which no process held the run. They do not count towards deadlines of bodies
    or delays between attempts. Older engines recorded none, and counted them.
    """


class MapExpanded(_Event, tag="map_expanded", frozen=True, kw_only=True):
    """The list of an `each` node has `count` elements."""

    node: str
    count: int


class PlanDraft(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Progress of a plan at the start of a turn of a `plan` node."""

    graph: Any
    """The workflow of this turn: a question to the router, or the plan itself."""
    lines: tuple[str, ...] = ()
    """Accepted lines of the plan. In a complete plan the last line is the answer."""
    rejections: tuple[tuple[str, str, str, str], ...] = ()
    """Rejections of the current line: code, path, reason and hint."""
    repaired_lines: int = 0
    """Lines that were wrong at first."""
    version: int = 0
    """Version of the plan, from 1: a failed plan is replaced by the next version. Its steps have the scope
    `node@version`, which grows. 0 if the steps are the body of the last turn, as in older engines.
    """
    plan: Any = None
    """The workflow of the accepted lines if lines were accepted since the last event; its new steps may start. Null if
    there are none.
    """
    failed_calls: tuple[tuple[str, str], ...] = ()
    """At the start of a version that replaces a failed one: the failed calls, as lines of this version, and the
    reasons.
    """
    carried_values: dict[str, str] = {}
    """At the same point: names in this version, mapped to the steps of the previous version whose values are reused."""
    used_effects: tuple[str, ...] = ()
    """At the same point: tools with effects that the previous version called. They are not offered again."""
    escalated: bool = False
    """Whether the larger planner has taken over."""
    sample: int = 0
    """For a voted plan: the current sample, from 1."""
    parallel: bool = False
    """Whether the samples are made in parallel. Older engines made them one after the other."""
    sampled_plans: tuple[tuple[str, ...], ...] = ()
    """Lines of the finished samples; empty for a sample without a plan. With parallel samples they are recorded with
    the plan that won.
    """
    agreement: float | None = None
    """For a voted plan: the share of samples that agree on it, which is its confidence."""
    reused_from: str = ""
    """For a reused plan: the run that it was made for."""
    saved_usage: Usage = NO_USAGE
    """Cost of the reused plan when it was made."""
    warning: str = ""
    """Why a stored plan was ignored."""
    rule: str = ""
    """The rule that made the plan; empty for a plan of the router, or a reused one."""


class TurnStarted(_Event, tag="turn_started", frozen=True, kw_only=True):
    """A body starts: that of a `call` node (turn 1), the `turn`-th iteration of a loop (from 1), or the next question
    to the router of a plan.

    A plan runs while it is made, and grows by the accepted lines.
    """

    node: str
    turn: int
    draft: PlanDraft | None = None
    """For a `plan` node."""
    choice_reason: str = ""
    """For a node that chooses its agent: the chosen agent, and the label that decided."""


class AttemptStarted(_Event, tag="attempt_started", frozen=True, kw_only=True):
    """A call started: attempt number `attempt` (from 1) of a node."""

    node: str
    attempt: int
    name: str = ""
    """The agent or tool."""
    escalated: bool = False
    """Whether a larger model of the fleet is called instead of the agent's own."""
    tier: int = 0
    """The index of the larger model, from 1, if it is not the first one."""
    reserved: int = 0
    """Reserved tokens: upper bound of the prompt plus the longest output."""
    escalation_reason: str = ""
    """For a node with an `escalate` condition, at its first attempt: the condition, and the values that decided."""


class AttemptFinished(_Event, tag="attempt_finished", frozen=True, kw_only=True):
    """A call finished, with a value or an error code. `sent` and `received` are digests of blobs with the exact bytes.

    A call that returned at once has no `AttemptStarted`; its agent or tool is `name`.
    """

    node: str
    attempt: int
    name: str = ""
    value: Any = None
    error: str = ""
    reason: str = ""
    hint: str = ""
    frames: tuple[str, ...] = ()
    """Traceback of the tool's own code: `FILE:LINE in FUNCTION`, outermost frame first."""
    retryable: bool = False
    permanent: bool = False
    """Whether another attempt would most likely fail in the same way. Such a call is retried only if the node sets
    `retry:`.
    """
    usage: Usage = NO_USAGE
    confidence: float | None = None
    server: str = ""
    model: str = ""
    sent: str = ""
    received: str = ""
    final: bool = False
    """Whether the value is the outcome of the node at once, because it has no checks. No `NodeFinished` follows."""
    memo_key: str = ""
    """Key of the memoized answer if the call is pure and versioned; otherwise empty."""
    reused_from: str = ""
    """The run that the answer was reused from; no call was made."""
    outbox: bool = False
    """Whether the value, a message, was added to the outbox in the transaction of this event."""
    overridden_by: OverrideSource | None = None
    """For a reused answer: the person who set it, if a person did."""


class CheckPriority(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """Priority and cost of a check under a budget for checks."""

    uncertainty: float
    """1 - P(correct), in [0, 1]."""
    influence: float
    """Share of the output's inputs that depends on the value, in [0, 1]."""
    expected_tokens: float
    """Expected tokens."""
    max_tokens: int
    """Maximum tokens; these are reserved."""
    skip_reason: str = ""
    """Why the check got no budget."""

    @property
    def value_per_token(self) -> float:
        """Expected value of the check per token."""
        return self.uncertainty * self.influence / max(1.0, self.expected_tokens)


class CheckQuestion(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A question of a check to an agent."""

    agent: str
    inputs: dict[str, Any]
    sample: int = 0
    """For a question that is sampled several times: the sample, from 1."""


class ChecksStarted(_Event, tag="checks_started", frozen=True, kw_only=True):
    """A check of an attempt's value calls agents. The questions of `round` (from 1) are calls under `node?round/`."""

    node: str
    attempt: int
    round: int
    check: str
    questions: tuple[CheckQuestion, ...]
    verdicts: tuple[Verdict, ...] = ()
    """Verdicts of the checks that ran before it."""
    priority: CheckPriority | None = None
    """The priority of the check, if the run has a budget for checks."""


class OutputJudged(_Event, tag="output_judged", frozen=True, kw_only=True):
    """The checks of an attempt's value have finished."""

    node: str
    attempt: int
    verdicts: tuple[Verdict, ...]
    accepted: bool
    score: float | None = None
    reason: str = ""
    guarantee: str = ""
    """The guarantee of a certificate for this value, as text; empty if it was not accepted under a certificate."""
    skipped_checks: CheckPriority | None = None
    """The priority of checks that were skipped because the budget for checks was used up."""
    feedback: str | None = None
    """Feedback for the next attempt, if it is not the whole reason. Empty if the only failures were checks that
    crashed.
    """


class RetryPlanned(_Event, tag="retry_planned", frozen=True, kw_only=True):
    """Attempt number `attempt` starts at wall-clock time `due`."""

    node: str
    attempt: int
    due: float
    reason: str = ""


class NodeFinished(_Event, tag="node_finished", frozen=True, kw_only=True):
    """A node has its outcome, which never changes."""

    node: str
    outcome: Outcome
    original_outcome: Outcome | None = None
    """The original outcome of the node, if `outcome` is its `fallback`."""
    overridden_by: OverrideSource | None = None
    """The person who set the value, if a person did."""


class EvidenceText(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A text that is shown to a person, and its source."""

    text: str
    source: str = ""


class WithheldOutput(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A value that was not accepted, as shown to the person who is asked for the right one."""

    value: Any
    reason: str = ""
    verdicts: tuple[Verdict, ...] = ()
    evidence: tuple[EvidenceText, ...] = ()
    """The evidence of the value; long texts are cut."""
    tiers: str = ""
    """The models that were called, and the ones that were skipped, with reasons."""


class QuestionAsked(_Event, tag="question_asked", frozen=True, kw_only=True):
    """A person is asked. `question_digest` covers question, options, type and the withheld value; an answer is bound to
    it.

    `kind` is one of:

    - `answer`: the question of an `ask` node.
    - `effect`: it is unknown whether a call with effect `once` happened before the run was interrupted. The options are
      `again` and `fail`; a value of the type `result_schema` means that the call happened with this result.
    - `acceptance`: the value of a node was not accepted, and a person is asked for the right one (`otherwise: [ask]`).
    """

    node: str
    question: str
    schema: dict[str, Any]
    question_digest: str
    options: tuple[str, ...] = ()
    kind: str = "answer"
    withheld: WithheldOutput | None = None
    """For a question about acceptance."""
    due: float = 0.0
    """Wall-clock deadline of the question, or of a body that contains it; 0 without a deadline. Answers at or after it
    do not count. Older engines recorded none.
    """
    result_schema: dict[str, Any] | None = None
    """For a question about an effect: the result type of the call. Older engines recorded none, and accepted no such
    answer.
    """


class QuestionAnswered(_Event, tag="question_answered", frozen=True, kw_only=True):
    """A person answered, or declined to.

    `message_number` is its number in the run's inbox; 0 if it did not come through the inbox.
    """

    node: str
    value: Any
    by: str = ""
    message_number: int = 0
    decline_reason: str = ""
    """Why the person declines; `value` is null then. Empty for an answer."""
    call_happened: bool = False
    """For a question about an effect: whether the call happened, with `value` as its result."""


NO_OPEN_QUESTION = "the question is not open"
"""The reason of the rejection of an inbox message that answers no open question."""


class InboxMessageRejected(_Event, tag="inbox_message_rejected", frozen=True, kw_only=True):
    """An inbox message was rejected: its question is not open, has another digest, or has another type."""

    message_number: int
    reason: str
    node: str = ""


class TokensCounted(_Event, tag="tokens_counted", frozen=True, kw_only=True):
    """A server counted the tokens of a call's prompt, because the bound by its bytes did not fit into the budget."""

    node: str
    prompt_tokens: int


class CancelRequested(_Event, tag="cancel_requested", frozen=True, kw_only=True):
    """A request to cancel the run."""

    by: str = ""
    message_number: int = 0


class RunFinished(_Event, tag="run_finished", frozen=True, kw_only=True):
    """The last event. `status` is `done`, `failed`, `abstained`, `budget` or `cancelled`."""

    status: str
    outcome: Outcome
    usage: Usage = NO_USAGE


Event: TypeAlias = (
    RunStarted
    | RunResumed
    | MapExpanded
    | TurnStarted
    | AttemptStarted
    | AttemptFinished
    | ChecksStarted
    | OutputJudged
    | RetryPlanned
    | NodeFinished
    | QuestionAsked
    | QuestionAnswered
    | InboxMessageRejected
    | TokensCounted
    | CancelRequested
    | RunFinished
)

encode = msgspec.json.Encoder().encode
"""Encodes an event as JSON bytes."""
decode = msgspec.json.Decoder(Event).decode
"""Decodes an event from JSON bytes. Raises `msgspec.ValidationError` for an unknown type or field."""


def reused_plan(start: RunStarted) -> tuple[str, Usage] | None:
    """Returns the run that a reused plan was made for, and its cost then; None for a new plan or no plan."""
    match start.options.get("planned"):
        case {
            "run": str(run),
            "saved": {"calls": int(calls), "prompt_tokens": int(prompt), "output_tokens": int(output)},
        }:
            return run, Usage(calls=calls, prompt_tokens=prompt, output_tokens=output)
        case _:
            return None


def last_read_message(events: Sequence[Event]) -> int:
    """Returns the number of the last inbox message that the run has read, or 0."""
    return max(
        (
            event.message_number
            for event in events
            if isinstance(event, QuestionAnswered | CancelRequested | InboxMessageRejected)
        ),
        default=0,
    )
