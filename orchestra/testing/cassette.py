"""Cassettes: what workers answered once, in a file that a person can read, and that stands in for them afterwards.

    workers = Recorder(real, Path("cassettes/test_answers.jsonl"))      # passes calls on, and keeps what comes back
    ...                                                                 # run the workflow with these workers
    workers.save()
    workers = Player(Path("cassettes/test_answers.jsonl"))              # answers from the file; nobody else is asked

A call is found by what it says (agent or tool, inputs, evidence, feedback, attempt, whether it is escalated, which of several samples),
never by node names or run ids: renaming a node leaves its cassette as it is. Both gather in `faults` what a test must not pass over; who
runs the test raises them, because a workflow may survive the refusal that the engine sees.
"""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from orchestra.core.clock import SystemClock
from orchestra.core.errors import OrchestraError
from orchestra.core.labels import Label, may_go
from orchestra.core.protocols import UNMEASURED, Call, Chunk, Clock, Done, Measure, Refused, Reply, Workers
from orchestra.schema.strict_json import canonical, digest
from orchestra.testing.cassette_diff import differences, likeness
from orchestra.testing.cassette_file import RECORD, CassetteError, Cost, Entry, Refusal, Text, asked, read, render

__all__ = ["CassetteError", "Player", "Prompts", "Recorder"]

Prompts: TypeAlias = Callable[[Call], str]
"""Gives a digest of what an agent is asked with beside the call's inputs: its prompt and its output type; empty where unknown."""


class Recorder:
    """Stands behind the `Workers` door: passes calls on, and keeps each with its reply until `save` writes them."""

    def __init__(
        self, workers: Workers, path: Path, *, label: Label = "internal", prompts: Prompts | None = None, clock: Clock | None = None
    ) -> None:
        """`label` is the strictest label that may stand in the file: `restricted` data is recorded only where it says so."""
        self.path = path
        self.faults: list[OrchestraError] = []
        self._workers, self._label, self._prompts = workers, label, prompts
        self._clock: Clock = clock or SystemClock()
        self._begun = 0
        self._kept: dict[int, Entry] = {}
        self._costs: dict[str, Cost] = {}
        self._tokens: dict[str, int] = {}

    @property
    def entries(self) -> list[Entry]:
        """What was kept, in the order in which the calls began: so calls that say the same get their own answers when they are replayed."""
        return [self._kept[number] for number in sorted(self._kept)]

    async def run(self, call: Call) -> AsyncGenerator[Reply, None]:
        """Passes a call on. What was closed before its reply is kept as cancelled; data of a stricter label gets C032, and no worker."""
        if not may_go(call.label, self._label):
            self.faults.append(_restricted(call))
            yield _refusal(self.faults[-1])
            return
        began, written, number = self._clock.monotonic(), list[str](), self._begun
        self._begun += 1
        try:
            async with aclosing(self._workers.run(call)) as replies:
                async for reply in replies:
                    if isinstance(reply, Chunk):
                        written.append(reply.text)
                    else:
                        self._kept[number] = self._entry(call, reply, self._clock.monotonic() - began, "".join(written))
                    yield reply
        except (GeneratorExit, asyncio.CancelledError):
            if number not in self._kept:
                self._kept[number] = self._entry(call, None, self._clock.monotonic() - began, "".join(written))
            raise

    def measure(self, call: Call) -> Measure:
        """What the workers say, kept with the call."""
        found = self._workers.measure(call)
        if found != UNMEASURED:
            self._costs[_key(asked(call))] = Cost(**msgspec.structs.asdict(found))
        return found

    async def count(self, call: Call) -> int | None:
        """What the workers say, kept with the call."""
        found = await self._workers.count(call)
        if found is not None:
            self._tokens[_key(asked(call))] = found
        return found

    def save(self) -> None:
        """Writes the file, whole or not at all.

        Raises `CassetteError` C031 for what could not be read back, C033 where it cannot be written.
        """
        entries = []
        for entry in self.entries:
            key = _key(entry.asked())
            entries.append(msgspec.structs.replace(entry, cost=self._costs.get(key), tokens=self._tokens.get(key)))
        data = render(entries)
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(data)
            beside.replace(self.path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise CassetteError(
                "C033", f"{self.path} cannot be written: {error.strerror or error}", hint="see the folder's rights"
            ) from error

    def _entry(self, call: Call, reply: Done | Refused | None, seconds: float, written: str) -> Entry:
        facts: dict[str, Any] = {
            "inputs": call.inputs,
            "evidence": tuple(Text(source.text, source.name) for source in call.evidence),
            "feedback": call.feedback,
            "escalate": call.escalate,
            "tier": call.tier if call.tier > 1 else 0,
            "attempt": call.attempt,
            "sample": call.sample,
            "label": call.label,
            "prompt": self._prompts(call) if self._prompts else "",
            "seconds": round(max(0.0, seconds), 3),
            "written": written,
        }
        if call.kind == "agent":
            facts["agent"] = call.name
        else:
            facts["tool"] = call.name
        if reply is not None:
            facts |= {"usage": reply.usage, "server": reply.server, "model": reply.model}
            facts |= _bytes("sent", reply.sent) | _bytes("received", reply.received)
        match reply:
            case None:
                facts["cancelled"] = True
            case Done():
                facts |= {"value": reply.value, "confidence": reply.confidence}
            case Refused():
                facts["refused"] = Refusal(
                    code=reply.code, reason=reply.reason, hint=reply.hint, retryable=reply.retryable, lasting=reply.lasting
                )
        return Entry(**facts)


class Player:
    """Stands behind the `Workers` door and answers from a cassette.

    Calls that say the same get the recorded answers in turn, the last one again and again. A call that was never recorded, or
    whose agent has another prompt now, is refused (C034) and stands in `faults`.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None, prompts: Prompts | None = None, hint: str = "") -> None:
        """With a `clock` a reply takes as long as it took; without one it is there at once. Raises `CassetteError` C030 or C031."""
        self.path = path
        self.faults: list[OrchestraError] = []
        self._entries = read(path)
        self._clock, self._prompts = clock, prompts
        self._hint = hint or f"{RECORD} records it again"
        self._known: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in self._entries:
            self._known[_key(entry.asked())].append(entry)
        self._turns: Counter[str] = Counter()
        self._samples = any(entry.sample for entry in self._entries)

    async def run(self, call: Call) -> AsyncGenerator[Reply, None]:
        """The recorded reply of a call; what was cancelled then waits until it is cancelled again."""
        key = self._key(call)
        known = self._known.get(key)
        if known is None or self._reworded(call, known[0]):
            self.faults.append(self._unknown(call) if known is None else self._changed(call))
            yield _refusal(self.faults[-1])
            return
        entry = known[min(self._turns[key], len(known) - 1)]
        self._turns[key] += 1
        if self._clock is not None:
            await self._clock.sleep(entry.seconds)
        if entry.written:
            yield Chunk(entry.written)
        reply = entry.reply()
        if reply is None:
            await asyncio.Event().wait()
        else:
            yield reply

    def measure(self, call: Call) -> Measure:
        """What the workers said when the call was recorded."""
        known = self._known.get(self._key(call))
        cost = known[0].cost if known else None
        return UNMEASURED if cost is None else Measure(**msgspec.structs.asdict(cost))

    async def count(self, call: Call) -> int | None:
        """What the workers said when the call was recorded."""
        known = self._known.get(self._key(call))
        return known[0].tokens if known else None

    def _key(self, call: Call) -> str:
        """Where a call is found. A cassette without samples may be of a time when they were not written down: there it is found without."""
        said = asked(call)
        return _key(said if self._samples else {**said, "sample": 0})

    def _reworded(self, call: Call, entry: Entry) -> bool:
        prompt = self._prompts(call) if self._prompts else ""
        return bool(prompt and entry.prompt and prompt != entry.prompt)

    def _changed(self, call: Call) -> CassetteError:
        return CassetteError(
            "C034",
            f"{self.path.name} was recorded with another {call.name}",
            why=f"the prompt or the output type of {call.name!r} has changed since then",
            hint=self._hint,
        )

    def _unknown(self, call: Call) -> CassetteError:
        wanted = asked(call)
        alike = [entry.asked() for entry in self._entries if (entry.kind, entry.name) == (call.kind, call.name)]
        if alike:
            nearest = max(alike, key=lambda known: likeness(known, wanted))
            why = "the nearest recorded call differs:\n" + "\n".join(f"     {line}" for line in differences(nearest, wanted))
        else:
            names = sorted({entry.name for entry in self._entries})
            why = f"it has calls of {', '.join(names)} only" if names else "it has no calls at all"
        return CassetteError("C034", f"{self.path.name} has no answer to this call of {call.name}", why=why, hint=self._hint)


def _key(said: dict[str, Any]) -> str:
    return digest(canonical(said))


def _bytes(name: str, data: bytes) -> dict[str, str]:
    """Bytes as a field of a line: as text where they are UTF-8."""
    try:
        return {name: data.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(data).decode()}


def _restricted(call: Call) -> CassetteError:
    return CassetteError(
        "C032",
        f"the inputs of {call.name} are labelled {call.label!r}, and a cassette is a file that others read",
        hint="test with invented data; or allow it: @pytest.mark.cassette(label='restricted')",
    )


def _refusal(fault: OrchestraError) -> Refused:
    return Refused(code=fault.code, reason=fault.message, hint=fault.hint)
