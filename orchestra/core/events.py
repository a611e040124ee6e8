"""Events: the closed union of facts that a run is made of, version 2.

A run is the fold of its events. `seq` counts 1, 2, 3, … without a gap; `at` is wall-clock seconds since the epoch.
`node` is a path, as `orchestra.core.paths` has them. Events are msgspec structs: made in a tenth of a microsecond,
and read back by a strict,
tagged decoder that refuses what it does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from orchestra.core.labels import Label
from orchestra.core.outcomes import Evidence, Outcome
from orchestra.core.paths import format_path

VERSION = 2

# `gc=False`, here and in doors and outcomes: what these hold is JSON and other such structs, so no cycle can begin in them. Python's
# collector, which took 0.25 of the 0.53 s of `python -m bench.idle ours`, need not look at them.


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What one call, or many, cost. Tokens as the server counted them; seconds of wall clock."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    seconds: float = 0.0
    resends: int = 0
    """Requests that no model saw (refused, 429, 503) and that the fleet sent again."""
    money: float = 0.0
    """In the currency of the fleet's prices; a server without a price costs none."""
    estimated_tokens: int = 0
    """Of the tokens those that no server counted, at most so many: an answer that broke off is taken to have cost what was reserved."""

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
    """A part that was taken out of a value, because the evidence does not bear it out: an element of a list, or a sentence of a text."""

    steps: tuple[str | int, ...]
    """The way to the element, or to the text that the sentence stands in."""
    text: str
    """What it claims."""
    reason: str
    score: float | None = None
    """How probable it is that the evidence supports it, in [0, 1]; None where that is not known."""
    start: int | None = None
    """Of a sentence: its place in the text, in characters."""
    end: int | None = None

    @property
    def path(self) -> str:
        """The way as people read it: `items[1]`."""
        return format_path(self.steps)


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The result of one check: `outcome` is `pass`, `fail` or `unknown`; `unknown` never passes."""

    check: str
    outcome: str
    score: float
    reason: str = ""
    deterministic: bool = True
    evidence: tuple[Evidence, ...] = ()
    parts: tuple[Verdict, ...] = ()
    """Of checks that were put together: what each of those said that were asked."""
    dropped: tuple[DroppedPart, ...] = ()
    """Where the node backs off: the parts of the value that did not pass. The verdict is about what is left."""


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
    """That a person said what a step gave: no worker did, and no check has accepted it."""

    by: str = ""
    run: str = ""
    """The run in which it was said, where that is another."""


class Override(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What a person says that a step gives, before the run begins."""

    value: Any
    source: OverrideSource = OverrideSource()
    question_digest: str = ""
    """Of an answer in the run that this one is a fork of: the digest of its question; it counts where that is asked again."""
    requires_all: bool = False
    """Whether it is a list that is held to having all elements, which its node needs. Older versions took any number of them, and what
    runs were given then stands."""


class RunStarted(_Event, tag="run_started", frozen=True, kw_only=True):
    """The first event: what runs, on what. `graph` is the digest of the frozen workflow, stored as a blob."""

    run: str
    workflow: str
    graph: str
    inputs: Any
    label: Label = "internal"
    versions: dict[str, str] = {}
    """By name: the digest of each agent's card, tool's contract and called workflow, stored as blobs; a resumed run goes on with these."""
    parent: str = ""
    """The run that this one was forked from."""
    options: dict[str, Any] = {}
    """What the run was told beside its inputs and must still know when it is resumed, `budget` and `memo`;
    its `purpose`, where it is no work of the user's; and its `tags`."""
    tiers: tuple[str, ...] = ()
    """The larger models that the fleet had, as its file names them, in the order in which they are asked. Where none is named there may be
    one: it is asked once, and the fleet says whether it is there."""
    overrides: dict[str, Override] | None = None
    """By path: what a person gave in the place of what the step would come to, and nothing is called for it; None of most runs."""

    @property
    def tags(self) -> dict[str, str]:
        """What its caller finds it by; of what is damaged, or of another version, what can be read."""
        said = self.options.get("tags")
        return {name: value for name, value in said.items() if isinstance(value, str)} if isinstance(said, dict) else {}


def tier_name(tiers: tuple[str, ...], tier: int) -> str:
    """What the fleet calls one of the larger models of a run, from 1; 0 is the agent's own model."""
    return "its own model" if tier < 1 else tiers[tier - 1] if tier <= len(tiers) else "the larger model"


class RunResumed(_Event, tag="run_resumed", frozen=True, kw_only=True):
    """Somebody took the run over: under this lease epoch. Attempts that were under way then are made again, or asked about."""

    epoch: int
    by: str = ""
    idle_seconds: float = 0.0
    """Seconds since the event before it, in which nobody had the run in hand: they count neither as time of a body nor between attempts.
    Older engines recorded none, and counted them."""


class MapExpanded(_Event, tag="map_expanded", frozen=True, kw_only=True):
    """The list of an `each` node is known: it has `count` elements."""

    node: str
    count: int


class PlanDraft(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How far a plan is when a turn of a `plan` node begins."""

    graph: Any
    """The workflow of this turn: a question to the router, or the plan itself."""
    lines: tuple[str, ...] = ()
    """Those of the plan that stand; the last one is its answer where the plan is whole."""
    rejections: tuple[tuple[str, str, str, str], ...] = ()
    """Of the line that is under way: code, path, reason and hint of each rejection."""
    repaired_lines: int = 0
    """Lines that were wrong at first."""
    version: int = 0
    """Which plan of the node this is, from 1: one that failed is followed by another. Its steps stand in a scope of their own,
    `node@version`, which grows. 0 where the steps are the last turn's body, as older engines had it."""
    plan: Any = None
    """The workflow of the lines that stand, where some were accepted since, and their steps may start; null where nothing is new."""
    failed_calls: tuple[tuple[str, str], ...] = ()
    """Where a version begins that follows a failed one: the calls that failed in it, as lines of this one, and why."""
    carried_values: dict[str, str] = {}
    """There too: by the name under which this version reads it, the step of the one before whose value is at hand."""
    used_effects: tuple[str, ...] = ()
    """There too: tools with effects that were called in the version before, and are not offered again."""
    escalated: bool = False
    """Whether the larger planner has taken over."""
    sample: int = 0
    """Of a plan that is voted on: which sample is under way, from 1."""
    parallel: bool = False
    """Whether the samples are made side by side; older engines made them one after the other."""
    sampled_plans: tuple[tuple[str, ...], ...] = ()
    """The lines of the samples that are done; none of one that came to no plan. Of samples side by side they stand at the plan that won."""
    agreement: float | None = None
    """Of a plan that was voted on: the share of the samples that agree on it, which is its confidence."""
    reused_from: str = ""
    """Of a plan that has served before: the run that it was made for."""
    saved_usage: Usage = NO_USAGE
    """What it cost then, and was not spent again."""
    warning: str = ""
    """What was wrong with a stored plan that was ignored."""


class TurnStarted(_Event, tag="turn_started", frozen=True, kw_only=True):
    """A body begins: that of a `call` node (turn 1), a loop's `turn`-th (from 1), or the next question to a plan's router. The plan
    itself goes on meanwhile, and grows by the lines that were accepted."""

    node: str
    turn: int
    draft: PlanDraft | None = None
    """Of a `plan` node."""
    choice_reason: str = ""
    """Of a node that chooses its agent: the one that is asked, and the label that decided it."""


class AttemptStarted(_Event, tag="attempt_started", frozen=True, kw_only=True):
    """A call went out: the `attempt`-th try (from 1) of a node."""

    node: str
    attempt: int
    name: str = ""
    """The agent or tool that was asked."""
    escalated: bool = False
    """Whether a larger model of the fleet was asked instead of the agent's own."""
    tier: int = 0
    """Which one, where it was not the first of them, from 1."""
    reserved: int = 0
    """Tokens that were reserved for it: a bound of its prompt and its longest output."""
    escalation_reason: str = ""
    """Of a node with a condition `escalate`, at its first attempt: the condition, and the values that decided it."""


class AttemptFinished(_Event, tag="attempt_finished", frozen=True, kw_only=True):
    """A call came back, with a value or with an error code. `sent` and `received` are digests of blobs: the exact bytes.

    A call that came back at once has no `AttemptStarted`; its agent or tool stands here as `name`.
    """

    node: str
    attempt: int
    name: str = ""
    value: Any = None
    error: str = ""
    reason: str = ""
    hint: str = ""
    frames: tuple[str, ...] = ()
    """Where a tool's own code raised: `FILE:LINE in FUNCTION`, the outermost first."""
    retryable: bool = False
    permanent: bool = False
    """Whether another attempt would most likely meet the same: one is made only where the node's `retry:` is stated."""
    usage: Usage = NO_USAGE
    confidence: float | None = None
    server: str = ""
    model: str = ""
    sent: str = ""
    received: str = ""
    final: bool = False
    """Whether the value is the node's outcome at once, because nothing judges it; no `NodeFinished` follows."""
    memo_key: str = ""
    """Under which key the answer is remembered, where the call is pure and versioned; empty where it is not."""
    reused_from: str = ""
    """The run whose answer this is, taken from the memo; no call went out."""
    outbox: bool = False
    """Whether the value, a message, was put into the outbox in the transaction that recorded this event."""
    overridden_by: OverrideSource | None = None
    """Of an answer that was recalled: whether a person had said it there."""


class CheckPriority(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What a check is about under a budget for checks, and what it costs."""

    uncertainty: float
    """1 - P(correct), in [0, 1]."""
    influence: float
    """The share of what leads to the output that rests on the value, in [0, 1]."""
    expected_tokens: float
    """Tokens that were expected of it."""
    max_tokens: int
    """Tokens that it may take at most; these are reserved."""
    skip_reason: str = ""
    """Why it got nothing."""

    @property
    def value_per_token(self) -> float:
        """What it is worth for each token."""
        return self.uncertainty * self.influence / max(1.0, self.expected_tokens)


class CheckQuestion(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What a check asks an agent."""

    agent: str
    inputs: dict[str, Any]
    sample: int = 0
    """Of questions that are asked more than once, with chance: which time, from 1."""


class ChecksStarted(_Event, tag="checks_started", frozen=True, kw_only=True):
    """A check of an attempt's value asks agents. Its `round`-th questions (from 1) are calls under `node?round/`."""

    node: str
    attempt: int
    round: int
    check: str
    questions: tuple[CheckQuestion, ...]
    verdicts: tuple[Verdict, ...] = ()
    """What the checks said that were asked before it."""
    priority: CheckPriority | None = None
    """Where the run has a budget for checks: what this one got some of it for."""


class OutputJudged(_Event, tag="output_judged", frozen=True, kw_only=True):
    """The checks have spoken on an attempt's value."""

    node: str
    attempt: int
    verdicts: tuple[Verdict, ...]
    accepted: bool
    score: float | None = None
    reason: str = ""
    guarantee: str = ""
    """What a certificate promises of this value, in words; empty where it was not accepted under one."""
    skipped_checks: CheckPriority | None = None
    """Where its checks asked nobody, because the budget for checks had nothing for them: what they would have been about."""
    feedback: str | None = None
    """What another attempt is told, where that is not the whole reason; empty where all that is against this one is checks that crashed."""


class RetryPlanned(_Event, tag="retry_planned", frozen=True, kw_only=True):
    """Attempt number `attempt` will start at wall-clock time `due`."""

    node: str
    attempt: int
    due: float
    reason: str = ""


class NodeFinished(_Event, tag="node_finished", frozen=True, kw_only=True):
    """A node has its one outcome. It never changes."""

    node: str
    outcome: Outcome
    original_outcome: Outcome | None = None
    """Where the outcome is the node's `fallback`: what the node itself came to."""
    overridden_by: OverrideSource | None = None
    """Where a person said what it gave: who."""


class EvidenceText(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A text that a person is shown, and where it comes from."""

    text: str
    source: str = ""


class WithheldOutput(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A value that was not accepted, as a person is shown it who is asked for the right one."""

    value: Any
    reason: str = ""
    verdicts: tuple[Verdict, ...] = ()
    evidence: tuple[EvidenceText, ...] = ()
    """What it had to rest on; long texts are cut."""
    tiers: str = ""
    """Which models were asked, and which were passed over and why."""


class QuestionAsked(_Event, tag="question_asked", frozen=True, kw_only=True):
    """A person is asked. `question_digest` covers question, options, type and the withheld value; an answer is bound to it.

    `kind` is `answer` for an `ask` node. It is `effect` if it is unknown whether a call with effect `once` happened before the run was
    interrupted: the options are `again` and `fail`, and a value of the type `result_schema` means that the call happened with this
    result. It is `acceptance` if a node's value was not accepted and a person is asked for the right one (`otherwise: [ask]`).
    """

    node: str
    question: str
    schema: dict[str, Any]
    question_digest: str
    options: tuple[str, ...] = ()
    kind: str = "answer"
    withheld: WithheldOutput | None = None
    """Of a question about acceptance."""
    due: float = 0.0
    """Wall-clock time at which its time is up, or that of a body that it stands in; 0 where it may wait for ever. Answers of that time and
    later do not count. Older engines recorded none."""
    result_schema: dict[str, Any] | None = None
    """Of a question about an effect: the type of what the call gives. Older engines recorded none, and took no such answer."""


class QuestionAnswered(_Event, tag="question_answered", frozen=True, kw_only=True):
    """A person answered, or declined to. `message_number` is its number in the run's inbox; 0 if it did not come through the inbox."""

    node: str
    value: Any
    by: str = ""
    message_number: int = 0
    decline_reason: str = ""
    """Why the person does not answer; `value` is null then. Empty for an answer."""
    call_happened: bool = False
    """Of a question about an effect: whether the call happened, and gave `value`."""


NO_OPEN_QUESTION = "nobody asks this"
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
    """Somebody wants the run to end."""

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
"""An event as JSON bytes."""
decode = msgspec.json.Decoder(Event).decode
"""JSON bytes as an event; raises `msgspec.ValidationError` for an unknown type or field."""


def reused_plan(start: RunStarted) -> tuple[str, Usage] | None:
    """The run that a run's plan was made for, and what it cost then; None for a run whose own plan was made, or that has none."""
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
