"""The architecture in one page: the engine reaches the world through three doors only.

`Clock` (time, sleep, randomness, ids), `Journal` (what happened), and `Workers` (who does the work). Production,
simulation and replay differ only in what stands behind them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping, Sequence
from math import inf
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.core.events import NO_USAGE, Event, OverrideSource, Usage
from orchestra.core.labels import Label


class EvidenceSource(msgspec.Struct, frozen=True, gc=False):
    """A text that an output may quote. `name` says where it comes from."""

    text: str
    name: str = ""


def collect_sources(value: Any, *, numbered: bool = False) -> tuple[EvidenceSource, ...]:
    """The texts in a value: strings, and records with a `text`, in lists and mappings of any depth.

    A record is named by its `source` where that is a text; with `numbered` also where it is a number, true or false.
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
    """One attempt of one node, as the engine asks for it."""

    run: str
    node: str
    attempt: int
    kind: Literal["agent", "tool"]
    name: str
    inputs: dict[str, Any]
    timeout: float | None = None
    """Seconds that this attempt may take."""
    max_output: int | None = None
    """Output tokens at most; the card's own limit where None."""
    priority: int = 0
    """Lower goes first (vLLM's convention); made from critical-path slack."""
    label: Label = "internal"
    evidence: tuple[EvidenceSource, ...] = ()
    """What fields of type `Quote` must be substrings of; where empty, the string inputs themselves."""
    feedback: tuple[str, ...] = ()
    """Why earlier attempts were not accepted, oldest first."""
    tier: int = 0
    """Whom to ask: 0 for the card's own model, 1 for the first of the fleet's larger ones (`escalate` of its file), and so on."""
    sample: int = 0
    """Which of several samples this is: drawn at a temperature above 0, with this as its seed; 0 for the card's own sampling."""
    version: str = ""
    """The digest of the agent's card or the tool's contract that the run began with; empty for whatever is there now."""
    stream: bool = False
    """Whether somebody reads the text of a language model while it is written: it comes in chunks then, if its server can."""

    @property
    def idempotency_key(self) -> str:
        """A stable idempotency key: the same for every attempt of one node of one run."""
        return f"{self.run}/{self.node}"

    @property
    def is_escalated(self) -> bool:
        """Whether a larger model is asked instead of the card's own."""
        return self.tier > 0


class CallEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a call may cost at most, and under which key its answer may be remembered."""

    prompt_tokens: int = 0
    """A bound: no tokenizer makes more tokens of the prompt. 0 where no model is asked."""
    max_output: int = 0
    min_output: int = 0
    token_prices: tuple[float, float] = (0.0, 0.0)
    """Money for a token of the prompt, and for one of the output."""
    unpriced_server: str = ""
    """A server that may be asked, that costs money, and of which nobody knows how much; empty where there is none."""
    memo_key: str = ""
    """A digest of everything that the answer depends on, without node names (DESIGN §9); empty for what must not be remembered."""
    uses_local_encoder: bool = False
    """Whether an encoder of this process reads the inputs: no server counts their tokens, and a budget for checks does by their words."""


NO_ESTIMATE = CallEstimate()


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """A piece of an unverified output, as it is written."""

    text: str


class CallResult(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The call's value, already of its contract's output type, with the exact bytes that went over the wire."""

    value: Any
    usage: Usage = NO_USAGE
    server: str = ""
    """Who answered; of an ensemble on several servers all of them, with a + between them."""
    model: str = ""
    sent: bytes = b""
    received: bytes = b""
    confidence: float | None = None
    """What the worker itself thinks in [0, 1]: a classifier's probability, a language model's probability of its text."""
    reused_from: str = ""
    """The run whose answer this is, where no call went out."""
    overridden_by: OverrideSource | None = None
    """Whether a person had said it there."""


class CallError(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The call gave no value: a coded reason. `retryable` says whether another attempt could help."""

    code: str
    reason: str
    hint: str = ""
    retryable: bool = False
    permanent: bool = False
    """Whether another attempt would most likely meet the same: one is made only where the node's `retry:` is stated."""
    usage: Usage = NO_USAGE
    server: str = ""
    model: str = ""
    sent: bytes = b""
    received: bytes = b""
    frames: tuple[str, ...] = ()
    """Where a tool's own code raised: `FILE:LINE in FUNCTION`, the outermost first."""


CallReply: TypeAlias = Chunk | CallResult | CallError
"""Any number of chunks, then exactly one `CallResult` or `CallError`."""


T = TypeVar("T")


class Clock(Protocol):
    """Time and chance, and what takes time without waiting for anybody."""

    def now(self) -> float:
        """Wall-clock seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds that never jump; only differences mean something."""

    async def sleep(self, seconds: float) -> None:
        """Waits; zero yields once to the loop."""

    async def run_in_thread(self, task: Callable[[], T]) -> T:
        """What a task gives that is pure and takes its time: beside the loop, so that all else goes on; in a simulation it takes none."""

    def random(self) -> float:
        """A number in [0, 1)."""

    def new_id(self) -> str:
        """A new run id: 16 characters or more, sortable by time."""


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `orchestra runs list`."""

    run: str
    workflow: str
    status: str
    """`running`; where nobody has it in hand, `waiting` for a person where nothing else is under way, or else `interrupted`; or the last
    event's status."""
    started: float
    finished: float | None = None
    nodes: int = 0
    usage: Usage = NO_USAGE
    due: float = 0.0
    """Of one that is `waiting`: the wall-clock time of the first deadline of what is asked; 0 where none has one."""
    holder: str = ""
    """Of one that is `running`: who has it in hand, `process 123 on HOST`, as far as that is known."""


class InboxMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What an outsider wants of a run: `cancel`, or an `answer` to what a node asked."""

    kind: Literal["cancel", "answer"]
    by: str = ""
    node: str = ""
    value: Any = None
    question_digest: str = ""
    """Of an answer: the digest of what was shown (`QuestionAsked.question_digest`)."""
    decline_reason: str = ""
    """Of an answer that is none: why the person does not give one."""
    call_happened: bool = False
    """Of an answer about a call in doubt: whether it happened, and gave `value`."""
    question_seq: int = 0
    """Of such an answer: the number of the event that asked (`QuestionAsked.seq`), for the same may be asked again. Older versions wrote none."""
    at: float = 0.0
    number: int = 0
    """Its place in the run's inbox, from 1; given by `send`."""

    def answers_same_question(self, other: InboxMessage) -> bool:
        """Whether both are answers to the same question."""
        same = (self.kind, self.node, self.question_digest) == (other.kind, other.node, other.question_digest)
        return (
            self.kind == "answer"
            and same
            and (self.question_seq == other.question_seq or 0 in (self.question_seq, other.question_seq))
        )


class OutboxMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the outbox: what a `transactional` tool wants to be done, recorded in the transaction that recorded its answer."""

    number: int
    """Grows by the order of commit."""
    run: str
    node: str
    name: str
    """The tool."""
    key: str
    """Stable: whoever delivers the message passes it on, and drops what carries a key that he has seen."""
    value: Any


NO_LIMIT = 1 << 40
"""A limit of `Journal.runs`: more runs than there are."""


class Journal(Protocol):
    """The append-only log of events, blobs by digest, the runs' inboxes, the memo and the outbox.

    One journal holds the lease of a run. Appending event 1 takes it; `lease` takes it over from a journal that is gone. Each lease
    has an epoch, and events of a journal whose epoch is over are refused (J005): two processes never write one run.
    """

    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        """Puts events in line, in order; returns at once. A fault of the store reaches whoever waits in `wait_durable`.

        For each `AttemptFinished` with `outbox` a message goes into the outbox, in the same transaction, marked as
        delivered where `delivered` names the node: of events that come from another journal.
        """

    async def check_writable(self) -> None:
        """Returns where what is appended now will be on disk: something was written. Raises the store's fault where it cannot be."""

    async def lease(self, run: str) -> int:
        """Takes over the lease of a run that nobody holds, and gives its epoch.

        Raises `JournalError`: J022 where a journal that is alive holds it, J023 where there is no such run, J006 where it has ended.
        """

    async def release(self, run: str) -> None:
        """Gives the lease back, once everything that is in line is on disk: the run waits."""

    async def send(self, run: str, message: InboxMessage, since: int | None = None) -> int:
        """Puts a letter into a run's inbox; gives its number once it is on disk. Raises `JournalError` J023, J006.

        With `since`, the number of a letter, only where no later one answers the same question; else gives 0. Of several who answer in
        the same moment, of whichever process, one gets a number.
        """

    async def inbox(self, run: str, after: int = 0) -> list[InboxMessage]:
        """The letters of a run with a greater number, in order."""

    async def wait_for_messages(self) -> set[str]:
        """Waits until letters came, and names the runs that got some since the last call; at the first call, since the opening.

        Letters of other processes are seen within a second.
        """

    def put_memo(self, memo: str, run: str, value: Any) -> None:
        """Keeps an accepted answer under its key with the next commit; the first one stays."""

    async def get_memo(self, memo: str) -> tuple[str, Any] | None:
        """The run that gave the answer, and the answer; or None."""

    async def outbox(self, after: int = 0, limit: int = 100) -> list[OutboxMessage]:
        """Messages with a greater number that nobody has marked as delivered, in order; only what is on disk."""

    async def mark_delivered(self, numbers: Sequence[int]) -> None:
        """Marks messages as delivered; on disk when it returns."""

    async def delete(self, run: str) -> None:
        """Removes a run: events, letters, messages that were delivered, and blobs that no other run names.

        Raises `JournalError`: J022 where somebody who lives holds its lease, J024 where messages are not delivered yet, J023.
        """

    def put_blob(self, data: bytes) -> str:
        """Stores a blob with the next commit and gives its digest (`orchestra.schema.strict_json.digest`)."""

    async def wait_durable(self, run: str, seq: int) -> None:
        """Waits until all events of the run up to `seq`, and the blobs put before them, are on disk."""

    async def read(self, run: str, after: int = 0) -> list[Event]:
        """The events with `seq > after`, in order; empty for a run that is not there."""

    async def get_blob(self, digest: str) -> bytes | None:
        """A blob's bytes, or None."""

    async def list_runs(self, limit: int = 50) -> list[RunSummary]:
        """Returns the latest runs, newest first.

        The status of a run without a lease is derived from its events: `orchestra.journal.summary.unleased_summary`.
        """

    async def summary(self, run: str) -> RunSummary | None:
        """The row of one run, as `runs` gives it; None for a run that is not there."""

    async def find_runs(self, prefix: str) -> list[str]:
        """The ids of runs that begin so, in order; at most 100."""

    async def close(self) -> None:
        """Commits what is in line and lets go of the store."""


class ScannedRun(NamedTuple):
    """A run as it was seen in passing: its events without their large values, or why they cannot be read."""

    run: str
    started: float
    events: Sequence[Event] = ()
    error: OrchestraError | None = None


@runtime_checkable
class Scannable(Protocol):
    """A journal that can also be gone through run by run: for whoever sums up many runs; reading each costs two to four times as much."""

    def scan(self, since: float = -inf) -> AsyncGenerator[ScannedRun, None]:
        """The runs that began at `since` or later, newest first, each as it was at one moment; those that begin meanwhile are left out.

        A run that is damaged, or of a kind that this version does not know, is no reason not to give the others.
        """


class RunSelection(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs a query is about: those with all of these tags that began in a period."""

    tags: Mapping[str, str] = {}
    since: float = -inf
    until: float = inf
    """Runs that began before that."""
    before: tuple[float, str] | None = None
    """The start and the id of a run: only runs behind it in the order of the list, newest first."""


class CallUsage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a run used for calls of one kind: of one agent or tool, answered by one model of one server, and alike in what has a price."""

    agent: str
    model: str
    server: str
    finished: int = 0
    reused: int = 0
    open: int = 0
    """Calls without an end."""
    usage: Usage = NO_USAGE


class RunUsage(msgspec.Struct, frozen=True, array_like=True):
    """What a run used so far, and the names by which it is summed up: a fold of its events."""

    workflow: str
    label: str
    started: float
    status: str
    """As the last event says; empty for a run without an end."""
    purpose: str
    tags: dict[str, str]
    calls: tuple[CallUsage, ...]
    reused_plans: int = 0
    """Plans that had served before."""
    saved_usage: Usage = NO_USAGE
    """What these plans cost when they were made."""


class RunUsageResult(NamedTuple):
    """What a run used, or why that cannot be read."""

    run: str
    started: float
    usage: RunUsage | None = None
    error: OrchestraError | None = None


@runtime_checkable
class IndexedJournal(Protocol):
    """A journal with indexes: it answers questions about many runs without reading all events.
    `orchestra.app.run_queries` asks any journal."""

    async def query_runs(self, limit: int, where: RunSelection) -> list[RunSummary]:
        """The latest runs of a selection, newest first."""

    def query_usages(self, where: RunSelection) -> AsyncGenerator[RunUsageResult, None]:
        """What each run of a selection used, newest first."""

    async def first_and_last_events(self, runs: Collection[str]) -> dict[str, tuple[Event, Event]]:
        """The first and the last event of each of these runs, without large values; those that cannot be read are left out."""

    async def derived_runs(self, runs: Collection[str]) -> list[str]:
        """Other runs that have something of what these were given or answered, in the order of their ids."""

    async def existing_runs(self, runs: Collection[str]) -> set[str]:
        """Those of these runs that are there."""

    async def get_memos(self, memos: Collection[str]) -> dict[str, tuple[str, Any]]:
        """What `get_memo` gives for each of these keys that is there."""

    async def delete_runs(self, runs: Sequence[str]) -> list[OrchestraError | None]:
        """Deletes runs in one transaction; for each why it is not deleted, as `delete` raises it, or None."""


class Workers(Protocol):
    """Whoever does the work: the fleet, classical and code agents, tools; or a simulation."""

    def run(self, call: CallRequest) -> AsyncGenerator[CallReply, None]:
        """Does one call. Closing the iterator early cancels it, up to the server. Never raises for what a model, a server
        or a tool does wrong: that is a `CallError`."""

    def estimate(self, call: CallRequest) -> CallEstimate:
        """What a call may cost, and its memo key. Quick, without I/O, and the same for the same call as long as nothing changes: an answer
        is remembered only where its key is the same before and after."""

    async def count_tokens(self, call: CallRequest) -> int | None:
        """The tokens of a call's prompt as its server counts them; None where nobody can tell."""


@runtime_checkable
class UnaryWorkers(Protocol):
    """Workers that can also do a call without a stream: for whoever does not read chunks, at a third of the cost."""

    async def call(self, call: CallRequest) -> CallResult | CallError:
        """The last reply of `run`. Being cancelled cancels the call, up to the server."""


def unary_call(workers: Workers) -> Callable[[CallRequest], Coroutine[Any, Any, CallResult | CallError]] | None:
    """The way past the stream, of workers that have one. Asked once: the question costs more than a call."""
    return workers.call if isinstance(workers, UnaryWorkers) else None
