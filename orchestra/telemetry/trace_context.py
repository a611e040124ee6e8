"""W3C trace context: the header `traceparent`, and the ids of the spans of a run.

Ids of spans are digests of the run, the node and the attempt. So they are known before a span ends, and the same in
every process that drives the run. The trace of a run is that of its caller, recorded with the run; else its id is a
digest of the run.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from orchestra.core.events import RunStarted

_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
TRACE_OPTION = "trace"
"""Name in `RunStarted.options` of the caller's `traceparent`."""
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The position in a trace: the trace, a span in it, and whether the trace is recorded."""

    trace_id: int
    span_id: int
    sampled: bool = True

    @classmethod
    def parse(cls, traceparent: str) -> TraceContext | None:
        """Returns the context of a `traceparent` header; None if it is not valid."""
        match = _TRACEPARENT.fullmatch(traceparent.strip())
        if match is None or (match[1] == "00" and match[5]):
            return None
        return cls(int(match[2], 16), int(match[3], 16), bool(int(match[4], 16) & _SAMPLED))

    def format(self) -> str:
        """Returns the `traceparent` header."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


def caller_context(started: RunStarted) -> TraceContext | None:
    """Returns the recorded context of the caller of a run; None if it had none."""
    traceparent = started.options.get(TRACE_OPTION)
    return TraceContext.parse(traceparent) if isinstance(traceparent, str) else None


def own_trace_id(run: str) -> int:
    """Returns the trace id of a run without a caller."""
    return int.from_bytes(_digest(run)[:16], "big") or 1


def span_id(run: str, *parts: str | int) -> int:
    """Returns the id of a span of a run."""
    return int.from_bytes(_digest("\0".join([run, *map(str, parts)]))[:8], "big") or 1


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
