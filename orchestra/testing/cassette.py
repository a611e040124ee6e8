"""Cassettes: recorded replies of workers in a readable file, for replay in tests.

    workers = Recorder(real, Path("cassettes/test_answers.jsonl"))      # forwards calls and records the replies
    ...                                                                 # run the workflow with these workers
    workers.save()
    workers = Player(Path("cassettes/test_answers.jsonl"))              # replies from the file, calls nothing

A call is identified by its content (agent or tool, inputs, evidence, feedback, attempt, escalation, sample), never by
node names or run ids: a renamed node keeps its cassette. Both classes collect in `faults` the errors that a test must
report. The test runner raises them, because a workflow may survive the error that the engine sees.
"""

from __future__ import annotations

import asyncio
import difflib
import os
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from orchestra.core.clock import SystemClock
from orchestra.core.errors import OrchestraError
from orchestra.core.labels import Label, is_allowed
from orchestra.core.protocols import (
    NO_ESTIMATE,
    CallError,
    CallEstimate,
    CallRequest,
    CallResult,
    Clock,
    TextCallback,
    Workers,
)
from orchestra.schema.strict_json import canonical, digest
from orchestra.testing.cassette_file import (
    RECORD_COMMAND,
    CassetteCallError,
    CassetteEntry,
    CassetteError,
    CassetteEstimate,
    CassetteSource,
    call_identity,
    encode_cassette,
    read_cassette,
)

MAX_LINES = 5
"""Differences shown at most."""
MAX_WIDTH = 60
"""Characters shown of each side of a difference."""
_MAX_COMPARED = 2_000
"""Characters of a call that are compared: `SequenceMatcher` takes quadratic time."""


def similarity(one: Any, other: Any) -> float:
    """Returns the similarity of two JSON values in [0, 1]: the mean of the share of equal parts and the similarity of
    the texts.
    """
    parts = dict(_leaves(one)), dict(_leaves(other))
    paths = parts[0].keys() | parts[1].keys()
    equal_count: float = sum(parts[0].get(path, _MISSING) == parts[1].get(path, _MISSING) for path in paths) / max(
        1, len(paths)
    )
    first, second = (canonical(value).decode()[:_MAX_COMPARED] for value in (one, other))
    ratio: float = difflib.SequenceMatcher(a=first, b=second, autojunk=False).quick_ratio()
    return (equal_count + ratio) / 2


def differences(recorded: Any, now: Any) -> list[str]:
    """Returns one line per difference: its path, the recorded value, the current value."""
    before, after = dict(_leaves(recorded)), dict(_leaves(now))
    paths = [*after, *(path for path in before if path not in after)]
    lines = []
    for path in paths:
        old, new = before.get(path, _MISSING), after.get(path, _MISSING)
        if old != new or type(old) is not type(new):
            lines.append(f"{path}: {_describe_change(old, new)}")
    if len(lines) > MAX_LINES:
        lines[MAX_LINES:] = [f"and {len(lines) - MAX_LINES} more"]
    return lines


_MISSING = object()


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the scalars and empty containers of a JSON value, with their paths."""
    match value:
        case dict() if value:
            for key, part in value.items():
                yield from _leaves(part, f"{path}.{key}" if path else str(key))
        case list() | tuple() if value:
            for index, part in enumerate(value):
                yield from _leaves(part, f"{path}[{index}]")
        case _:
            yield path, value


def _describe_change(old: Any, new: Any) -> str:
    if old is _MISSING:
        return f"not recorded, now {_shorten(new, 0)}"
    if new is _MISSING:
        return f"recorded {_shorten(old, 0)}, now missing"
    start = 0
    if isinstance(old, str) and isinstance(new, str):
        common = next(
            (index for index, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new))
        )
        start = max(0, common - MAX_WIDTH // 3) if max(len(old), len(new)) > MAX_WIDTH else 0
    return f"recorded {_shorten(old, start)}, now {_shorten(new, start)}"


def _shorten(value: Any, start: int) -> str:
    """Returns a value as one short line that starts near the difference."""
    text = value if isinstance(value, str) else canonical(value).decode()
    part = text[start : start + MAX_WIDTH]
    excerpt = ("…" if start else "") + part + ("…" if start + MAX_WIDTH < len(text) else "")
    return repr(excerpt) if isinstance(value, str) else excerpt


__all__ = ["CassetteError", "Player", "PromptDigest", "Recorder"]

PromptDigest: TypeAlias = Callable[[CallRequest], str]
"""Returns a digest of an agent's prompt and output type, which are not in the call's inputs; empty if unknown."""


class Recorder:
    """An implementation of `Workers` that forwards calls and records each with its reply. `save` writes the file."""

    def __init__(
        self,
        workers: Workers,
        path: Path,
        *,
        label: Label = "internal",
        prompt_digest: PromptDigest | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Creates a recorder.

        Args:
            workers: The workers that are recorded.
            path: The file.
            label: The highest label of recorded data: `restricted` data is recorded only if it is `restricted`.
            prompt_digest: Returns the prompt digest of a call.
            clock: Measures the durations.
        """
        self.path = path
        self.errors: list[OrchestraError] = []
        self._workers, self._label, self._prompt_digest = workers, label, prompt_digest
        self._clock: Clock = clock or SystemClock()
        self._call_count = 0
        self._entries: dict[int, CassetteEntry] = {}
        self._estimates: dict[str, CassetteEstimate] = {}
        self._token_counts: dict[str, int] = {}

    @property
    def entries(self) -> list[CassetteEntry]:
        """The records in the order of the start of the calls, so that equal calls get their own replies in replay."""
        return [self._entries[number] for number in sorted(self._entries)]

    async def call(self, call: CallRequest, on_text: TextCallback | None = None) -> CallResult | CallError:
        """Forwards a call. A call that is cancelled before its reply is recorded as cancelled. Data with a higher label
        gets C032 and is not forwarded. The text is recorded only with `on_text`.
        """
        if not is_allowed(call.label, self._label):
            self.errors.append(_label_error(call))
            return _to_call_error(self.errors[-1])
        start_time, text_parts, number = self._clock.monotonic(), list[str](), self._call_count
        self._call_count += 1

        def record_text(piece: str) -> None:
            text_parts.append(piece)
            if on_text is not None:
                on_text(piece)

        try:
            reply = await self._workers.call(call, None if on_text is None else record_text)
        except asyncio.CancelledError:
            self._entries[number] = self._entry(call, None, self._clock.monotonic() - start_time, "".join(text_parts))
            raise
        self._entries[number] = self._entry(call, reply, self._clock.monotonic() - start_time, "".join(text_parts))
        return reply

    def estimate(self, call: CallRequest) -> CallEstimate:
        """Returns the workers' estimate, and records it with the call."""
        estimate = self._workers.estimate(call)
        if estimate != NO_ESTIMATE:
            self._estimates[_identity_digest(call_identity(call))] = CassetteEstimate(
                **msgspec.structs.asdict(estimate)
            )
        return estimate

    async def count_tokens(self, call: CallRequest) -> int | None:
        """Returns the workers' count, and records it with the call."""
        tokens = await self._workers.count_tokens(call)
        if tokens is not None:
            self._token_counts[_identity_digest(call_identity(call))] = tokens
        return tokens

    def save(self) -> None:
        """Writes the file atomically.

        Raises:
            CassetteError: C031, a record could not be read back; C033, the file cannot be written.
        """
        entries = []
        for entry in self.entries:
            key = _identity_digest(entry.identity())
            entries.append(
                msgspec.structs.replace(entry, cost=self._estimates.get(key), tokens=self._token_counts.get(key))
            )
        data = encode_cassette(entries)
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(data)
            beside.replace(self.path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise CassetteError(
                "C033",
                f"{self.path} cannot be written: {error.strerror or error}",
                hint="check the permissions of the folder",
            ) from error

    def _entry(
        self, call: CallRequest, reply: CallResult | CallError | None, seconds: float, text: str
    ) -> CassetteEntry:
        facts: dict[str, Any] = {
            "inputs": call.inputs,
            "evidence": tuple(CassetteSource(source.text, source.name) for source in call.evidence),
            "feedback": call.feedback,
            "escalate": call.is_escalated,
            "tier": call.tier if call.tier > 1 else 0,
            "attempt": call.attempt,
            "sample": call.sample,
            "label": call.label,
            "prompt": self._prompt_digest(call) if self._prompt_digest else "",
            "seconds": round(max(0.0, seconds), 3),
            "written": text,
        }
        if call.kind == "agent":
            facts["agent"] = call.name
        else:
            facts["tool"] = call.name
        if reply is not None:
            facts |= {"usage": reply.usage, "server": reply.server, "model": reply.model}
            facts |= _bytes_field("sent", reply.sent) | _bytes_field("received", reply.received)
        match reply:
            case None:
                facts["cancelled"] = True
            case CallResult():
                facts |= {"value": reply.value, "confidence": reply.confidence}
            case CallError():
                facts["refused"] = CassetteCallError(
                    code=reply.code,
                    reason=reply.reason,
                    hint=reply.hint,
                    retryable=reply.retryable,
                    lasting=reply.permanent,
                )
        return CassetteEntry(**facts)


class Player:
    """An implementation of `Workers` that replies from a cassette.

    Equal calls get the recorded replies in order; the last one is repeated. A call that was not recorded, or whose
    agent has another prompt now, is refused (C034) and added to `faults`.
    """

    def __init__(
        self, path: Path, *, clock: Clock | None = None, prompt_digest: PromptDigest | None = None, hint: str = ""
    ) -> None:
        """Reads a cassette.

        Args:
            path: The file.
            clock: If given, a reply takes as long as when it was recorded; else there is no delay.

        Raises:
            CassetteError: C030 or C031.
        """
        self.path = path
        self.errors: list[OrchestraError] = []
        self._entries = read_cassette(path)
        self._clock, self._prompt_digest = clock, prompt_digest
        self._hint = hint or f"{RECORD_COMMAND} records it again"
        self._entries_by_key: defaultdict[str, list[CassetteEntry]] = defaultdict(list)
        for entry in self._entries:
            self._entries_by_key[_identity_digest(entry.identity())].append(entry)
        self._replay_counts: Counter[str] = Counter()
        self._has_samples = any(entry.sample for entry in self._entries)

    async def call(self, call: CallRequest, on_text: TextCallback | None = None) -> CallResult | CallError:
        """Returns the recorded reply of a call. A recorded cancellation waits until it is cancelled again."""
        key = self._key(call)
        entries = self._entries_by_key.get(key)
        if entries is None or self._prompt_changed(call, entries[0]):
            self.errors.append(self._unknown_call_error(call) if entries is None else self._changed_prompt_error(call))
            return _to_call_error(self.errors[-1])
        entry = entries[min(self._replay_counts[key], len(entries) - 1)]
        self._replay_counts[key] += 1
        if self._clock is not None:
            await self._clock.sleep(entry.seconds)
        if entry.written and on_text is not None:
            on_text(entry.written)
        reply = entry.to_reply()
        while reply is None:
            await asyncio.Event().wait()
        return reply

    def estimate(self, call: CallRequest) -> CallEstimate:
        """Returns the recorded estimate of the call."""
        entries = self._entries_by_key.get(self._key(call))
        cost = entries[0].cost if entries else None
        return NO_ESTIMATE if cost is None else CallEstimate(**msgspec.structs.asdict(cost))

    async def count_tokens(self, call: CallRequest) -> int | None:
        """Returns the recorded count of the call."""
        entries = self._entries_by_key.get(self._key(call))
        return entries[0].tokens if entries else None

    def _key(self, call: CallRequest) -> str:
        """Returns the key of a call. A cassette of an earlier version has no samples, so the key is tried without the
        sample.
        """
        identity = call_identity(call)
        return _identity_digest(identity if self._has_samples else {**identity, "sample": 0})

    def _prompt_changed(self, call: CallRequest, entry: CassetteEntry) -> bool:
        prompt = self._prompt_digest(call) if self._prompt_digest else ""
        return bool(prompt and entry.prompt and prompt != entry.prompt)

    def _changed_prompt_error(self, call: CallRequest) -> CassetteError:
        return CassetteError(
            "C034",
            f"{self.path.name} was recorded with another {call.name}",
            why=f"the prompt or the output type of {call.name!r} has changed since",
            hint=self._hint,
        )

    def _unknown_call_error(self, call: CallRequest) -> CassetteError:
        identity = call_identity(call)
        alike = [entry.identity() for entry in self._entries if (entry.kind, entry.name) == (call.kind, call.name)]
        if alike:
            nearest = max(alike, key=lambda recorded_identity: similarity(recorded_identity, identity))
            reason = "the nearest recorded call differs:\n" + "\n".join(
                f"     {line}" for line in differences(nearest, identity)
            )
        else:
            names = sorted({entry.name for entry in self._entries})
            reason = f"it has calls of {', '.join(names)} only" if names else "it has no calls at all"
        return CassetteError(
            "C034", f"{self.path.name} has no reply for this call of {call.name}", why=reason, hint=self._hint
        )


def _identity_digest(identity: dict[str, Any]) -> str:
    return digest(canonical(identity))


def _bytes_field(name: str, data: bytes) -> dict[str, str]:
    """Returns bytes as a field of a record: as text if they are UTF-8."""
    try:
        return {name: data.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(data).decode()}


def _label_error(call: CallRequest) -> CassetteError:
    return CassetteError(
        "C032",
        f"the inputs of {call.name} are labelled {call.label!r}, and others can read a cassette",
        hint="test with invented data; or allow it: @pytest.mark.cassette(label='restricted')",
    )


def _to_call_error(fault: OrchestraError) -> CallError:
    return CallError(code=fault.code, reason=fault.message, hint=fault.hint)
