"""Protocols between the engine and the rest of the system.

The engine uses three protocols: `Clock` (time, randomness, ids), `Journal` (durable events) and `Workers` (agents and
tools). Production, simulation and replay use the same engine with different implementations of these protocols.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from math import inf
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.core.events import NO_USAGE, Event, OverrideSource, Usage
from orchestra.core.labels import Label


class EvidenceSource(msgspec.Struct, frozen=True, gc=False):
    """A text that an output may quote. `name` is its origin."""

    text: str
    name: str = ""


def collect_sources(value: Any, *, numbered: bool = False) -> tuple[EvidenceSource, ...]:
    """Returns the texts in a value: strings, and records with a `text` field, in nested lists and mappings.

    The name of a record is its `source`, if that is a string. With `numbered`, a `source` that is a number or a boolean
    also counts.
    """
    match value:
        case str():
            return (EvidenceSource(value),) if value else ()
        case {"text": str(text), **rest}:
            name = rest.get("source", "")
            return (
                EvidenceSource(
                    text, str(name) if isinstance(name, str) or (numbered and isinstance(name, int | float)) else ""
                ),
            )
        case Mapping():
            return tuple(source for item in value.values() for source in collect_sources(item, numbered=numbered))
        case Sequence():
            return tuple(source for item in value for source in collect_sources(item, numbered=numbered))
        case _:
            return ()


class CallRequest(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One attempt of one node: the engine's request to `Workers`."""

    run: str
    node: str
    attempt: int
    kind: Literal["agent", "tool"]
    name: str
    inputs: dict[str, Any]
    timeout: float | None = None
    """Time limit of this attempt in seconds."""
    max_output: int | None = None
    """Maximum output tokens; None for the limit of the card."""
    priority: int = 0
    """A lower number is scheduled first, as in vLLM. The engine computes it from the critical-path slack."""
    label: Label = "internal"
    evidence: tuple[EvidenceSource, ...] = ()
    """Texts that fields of type `Quote` must be substrings of. If it is empty, the string inputs are used."""
    feedback: tuple[str, ...] = ()
    """Reasons why earlier attempts were not accepted, oldest first."""
    tier: int = 0
    """Model to call: 0 is the card's model, 1 is the first larger model of the fleet (`escalate` in the fleet file),
    and so on.
    """
    sample: int = 0
    """Index of a sample, also its seed, at a temperature above 0. 0 is a call with the card's own sampling settings."""
    version: str = ""
    """Digest of the agent's card or the tool's contract at the start of the run; empty for the current version."""

    @property
    def idempotency_key(self) -> str:
        """The idempotency key: the same for all attempts of one node of one run."""
        return f"{self.run}/{self.node}"

    @property
    def is_escalated(self) -> bool:
        """Whether a larger model is called instead of the card's model."""
        return self.tier > 0


class CallEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """Upper bounds of the cost of a call, and its memo key."""

    prompt_tokens: int = 0
    """Upper bound of the prompt tokens for any tokenizer; 0 if no model is called."""
    max_output: int = 0
    min_output: int = 0
    token_prices: tuple[float, float] = (0.0, 0.0)
    """Price of one prompt token and of one output token."""
    unpriced_server: str = ""
    """A server that may be called, costs money and has no known price; empty if there is none."""
    memo_key: str = ""
    """Digest of everything that the answer depends on, without node names (DESIGN §9). Empty if the answer must not be
    memoized.
    """
    uses_local_encoder: bool = False
    """Whether an encoder in this process reads the inputs. No server counts their tokens; the budget for checks counts
    their words.
    """


NO_ESTIMATE = CallEstimate()


class CallResult(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The value of a call, valid for the output type of the contract, with the exact bytes sent and received."""

    value: Any
    usage: Usage = NO_USAGE
    server: str = ""
    """The server that answered; for an ensemble on several servers, their names joined by `+`."""
    model: str = ""
    sent: bytes = b""
    received: bytes = b""
    confidence: float | None = None
    """Confidence of the worker in [0, 1]: the probability of a class, or the probability of a generated text."""
    reused_from: str = ""
    """The run that the answer was reused from, if no call was made."""
    overridden_by: OverrideSource | None = None
    """The person who set this value in the source run, if a person did."""


class CallError(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A call without a value: an error code and a reason. `retryable` is true if another attempt could succeed."""

    code: str
    reason: str
    hint: str = ""
    retryable: bool = False
    permanent: bool = False
    """Whether another attempt would most likely fail in the same way. Such a call is retried only if the node sets
    `retry:`.
    """
    usage: Usage = NO_USAGE
    server: str = ""
    model: str = ""
    sent: bytes = b""
    received: bytes = b""
    frames: tuple[str, ...] = ()
    """Traceback of the tool's own code: `FILE:LINE in FUNCTION`, outermost frame first."""


TextCallback: TypeAlias = Callable[[str], None]
"""Receives the text of a language model while it is generated, piece by piece. The text is not verified. For a
structured output it is the raw JSON.
"""


T = TypeVar("T")


class Clock(Protocol):
    """Time, randomness and work in threads."""

    def now(self) -> float:
        """Returns the wall-clock time in seconds since the epoch."""

    def monotonic(self) -> float:
        """Returns seconds of a monotonic clock. Only differences are meaningful."""

    async def sleep(self, seconds: float) -> None:
        """Waits. Zero seconds yields once to the event loop."""

    async def run_in_thread(self, task: Callable[[], T]) -> T:
        """Runs a pure, slow function outside of the event loop and returns its result. In a simulation it takes no
        time.
        """

    def random(self) -> float:
        """Returns a number in [0, 1)."""

    def new_id(self) -> str:
        """Returns a new run id of at least 16 characters. Ids sort by time."""


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `orchestra runs list`."""

    run: str
    workflow: str
    status: str
    """`running` if a live process holds the lease; `waiting` if only questions to people are open; `interrupted` if the
    run stopped without an end; otherwise the status of the last event.
    """
    started: float
    finished: float | None = None
    nodes: int = 0
    usage: Usage = NO_USAGE
    due: float = 0.0
    """Wall-clock time of the first deadline among the open questions of a `waiting` run; 0 if there is none."""
    holder: str = ""
    """The lease holder of a `running` run, `process 123 on HOST`, if it is known."""


class InboxMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A message to a run: `cancel`, or an `answer` to the question of a node."""

    kind: Literal["cancel", "answer"]
    by: str = ""
    node: str = ""
    value: Any = None
    question_digest: str = ""
    """Digest of the question that was shown (`QuestionAsked.question_digest`)."""
    decline_reason: str = ""
    """Why the person declines to answer; empty for an answer."""
    call_happened: bool = False
    """For a call in doubt: whether it happened, with `value` as its result."""
    question_seq: int = 0
    """`seq` of the `QuestionAsked` event, because a question may be asked again. 0 in messages of older versions."""
    at: float = 0.0
    number: int = 0
    """Number in the inbox of the run, from 1. `send` assigns it."""

    def answers_same_question(self, other: InboxMessage) -> bool:
        """Returns whether both messages answer the same question."""
        is_same = (self.kind, self.node, self.question_digest) == (other.kind, other.node, other.question_digest)
        return (
            self.kind == "answer"
            and is_same
            and (self.question_seq == other.question_seq or 0 in (self.question_seq, other.question_seq))
        )


class OutboxMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the outbox: a message of a `transactional` tool, recorded in the transaction of the tool's result."""

    number: int
    """Increases in the order of commits."""
    run: str
    node: str
    name: str
    """Name of the tool."""
    key: str
    """Stable key for deduplication: a consumer that has seen the key drops the message."""
    value: Any


NO_LIMIT = 1 << 40
"""A value for `Journal.list_runs(limit)` that is larger than any number of runs."""


class Journal(Protocol):
    """The append-only event log, with blobs by digest, inboxes of runs, the memo and the outbox.

    At most one journal holds the lease of a run. Appending event 1 takes the lease; `lease` takes it over from a
    journal that is no longer alive. Every lease has an epoch. Events from an earlier epoch are refused (J005), so two
    processes never write to one run.
    """

    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        """Queues events in order and returns at once. A storage fault is raised by `wait_durable`.

        An `AttemptFinished` event with `outbox` adds a message to the outbox in the same transaction.

        Args:
            run: The run.
            events: Its next events.
            delivered: Nodes whose outbox messages are marked as delivered, for events imported from another journal.
        """

    async def check_writable(self) -> None:
        """Writes to the store and returns if that succeeds. Raises the fault of the store otherwise."""

    async def lease(self, run: str) -> int:
        """Takes over the free lease of a run and returns its epoch.

        Raises:
            JournalError: J022 if a live journal holds the lease, J023 if the run does not exist, J006 if it has ended.
        """

    async def release(self, run: str) -> None:
        """Releases the lease of a run that waits, after all queued events are durable."""

    async def send(self, run: str, message: InboxMessage, since: int | None = None) -> int:
        """Adds a message to the inbox of a run and returns its number once it is durable.

        Args:
            run: The run.
            message: The message.
            since: A message number. If a later message answers the same question, nothing is added and 0 is returned.
                Of several concurrent senders, in any process, one succeeds.

        Raises:
            JournalError: J023 if the run does not exist, J006 if it has ended.
        """

    async def inbox(self, run: str, after: int = 0) -> list[InboxMessage]:
        """Returns the inbox messages of a run with a greater number, in order."""

    async def wait_for_messages(self) -> set[str]:
        """Waits for inbox messages and returns the runs that got some since the last call, or since the journal was
        opened.

        Messages from other processes arrive within a second.
        """

    def put_memo(self, memo: str, run: str, value: Any) -> None:
        """Stores an accepted answer under its memo key with the next commit. The first answer of a key is kept."""

    async def get_memo(self, memo: str) -> tuple[str, Any] | None:
        """Returns the run that produced the answer, and the answer; None if the key is unknown."""

    async def outbox(self, after: int = 0, limit: int = 100) -> list[OutboxMessage]:
        """Returns durable messages with a greater number that are not marked as delivered, in order."""

    async def mark_delivered(self, numbers: Sequence[int]) -> None:
        """Marks messages as delivered. Durable on return."""

    async def delete(self, run: str) -> None:
        """Deletes a run: its events, inbox messages, delivered outbox messages, and the blobs that no other run uses.

        Raises:
            JournalError: J022 if a live process holds the lease, J024 if messages are not delivered, J023 if the run
                does not exist.
        """

    def put_blob(self, data: bytes) -> str:
        """Stores a blob with the next commit and returns its digest (`orchestra.schema.strict_json.digest`)."""

    async def wait_durable(self, run: str, seq: int) -> None:
        """Waits until the events of the run up to `seq`, and the blobs stored before them, are durable."""

    async def read(self, run: str, after: int = 0) -> list[Event]:
        """Returns the events with `seq > after`, in order; empty for an unknown run."""

    async def get_blob(self, digest: str) -> bytes | None:
        """Returns the bytes of a blob, or None."""

    async def list_runs(self, limit: int = 50) -> list[RunSummary]:
        """Returns the latest runs, newest first.

        The status of a run without a lease is derived from its events: `orchestra.journal.summary.unleased_summary`.
        """

    async def summary(self, run: str) -> RunSummary | None:
        """Returns the summary of one run, as in `list_runs`; None for an unknown run."""

    async def find_runs(self, prefix: str) -> list[str]:
        """Returns at most 100 ids of runs with this prefix, in order."""

    async def close(self) -> None:
        """Commits queued events and closes the store."""


class ScannedRun(NamedTuple):
    """One run of a scan: its events without large values, or the error that prevents reading them."""

    run: str
    started: float
    events: Sequence[Event] = ()
    error: OrchestraError | None = None


@runtime_checkable
class Scannable(Protocol):
    """A journal that can iterate over all runs. Reading each run by itself takes two to four times as long."""

    def scan(self, since: float = -inf) -> AsyncGenerator[ScannedRun, None]:
        """Yields the runs that started at `since` or later, newest first. Each run is a consistent snapshot.

        Runs that start during the scan are left out. A run that is damaged, or has events of an unknown kind, is
        yielded with its error.
        """


class RunSelection(msgspec.Struct, frozen=True, kw_only=True):
    """Filter of a query: runs with all of these tags, started in a period."""

    tags: Mapping[str, str] = {}
    since: float = -inf
    until: float = inf
    """Exclusive end of the period."""
    before: tuple[float, str] | None = None
    """Start and id of a run: selects the runs after it in the list, newest first."""


class CallUsage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Usage of calls that have the same agent or tool, model, server and kind of price."""

    agent: str
    model: str
    server: str
    finished: int = 0
    reused: int = 0
    open: int = 0
    """Number of calls that have not finished."""
    usage: Usage = NO_USAGE


class RunUsage(msgspec.Struct, frozen=True, array_like=True):
    """Usage of a run so far, with the keys to group it by: a fold of its events."""

    workflow: str
    label: str
    started: float
    status: str
    """Status of the last event; empty for a run without an end."""
    purpose: str
    tags: dict[str, str]
    calls: tuple[CallUsage, ...]
    reused_plans: int = 0
    """Number of reused plans."""
    saved_usage: Usage = NO_USAGE
    """Cost of these plans when they were made."""


class RunUsageResult(NamedTuple):
    """Usage of a run, or the error that prevents reading it."""

    run: str
    started: float
    usage: RunUsage | None = None
    error: OrchestraError | None = None


@runtime_checkable
class IndexedJournal(Protocol):
    """A journal with indexes. It answers queries about many runs without reading all events.

    `orchestra.app.run_queries` works with any journal.
    """

    async def query_runs(self, limit: int, where: RunSelection) -> list[RunSummary]:
        """Returns the latest runs of a selection, newest first."""

    def query_usages(self, where: RunSelection) -> AsyncGenerator[RunUsageResult, None]:
        """Yields the usage of each run of a selection, newest first."""

    async def first_and_last_events(self, runs: Collection[str]) -> dict[str, tuple[Event, Event]]:
        """Returns the first and the last event of each run, without large values. Runs that cannot be read are left
        out.
        """

    async def derived_runs(self, runs: Collection[str]) -> list[str]:
        """Returns the other runs that contain inputs or answers of these runs, in the order of their ids."""

    async def existing_runs(self, runs: Collection[str]) -> set[str]:
        """Returns the ids that belong to existing runs."""

    async def get_memos(self, memos: Collection[str]) -> dict[str, tuple[str, Any]]:
        """Returns the result of `get_memo` for each known key."""

    async def delete_runs(self, runs: Sequence[str]) -> list[OrchestraError | None]:
        """Deletes runs in one transaction. Returns for each run None, or the error that `delete` would raise."""


class Workers(Protocol):
    """Executes calls of agents and tools: the fleet, local workers, or a simulation."""

    async def call(self, call: CallRequest, on_text: TextCallback | None = None) -> CallResult | CallError:
        """Executes one call. Cancelling this coroutine cancels the call, also on the server.

        An error of a model, a server or a tool is returned as a `CallError`; it is never raised.

        Args:
            call: The call.
            on_text: Receives the text of a language model, if the server supports streaming. The reply is the same
                without it. It must return at once, because the call waits for it, and it must not raise.
        """

    def estimate(self, call: CallRequest) -> CallEstimate:
        """Returns the cost bounds and the memo key of a call, fast and without I/O.

        Equal calls have equal estimates as long as nothing changes. An answer is memoized only if its key is the same
        before and after the call.
        """

    async def count_tokens(self, call: CallRequest) -> int | None:
        """Returns the number of prompt tokens as the server counts them; None if it is unknown."""
