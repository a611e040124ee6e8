"""The file format of cassettes: a line with the format's name, then one line of JSON per call and reply.

A file is untrusted data: parsed strictly, within limits, and nothing is executed.
"""

from __future__ import annotations

import shlex
from base64 import b64decode
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from orchestra.core.errors import OrchestraError, SourceLocation
from orchestra.core.events import NO_USAGE, Usage
from orchestra.core.labels import Label
from orchestra.core.protocols import CallError, CallEstimate, CallRequest, CallResult, EvidenceSource
from orchestra.schema.strict_json import MAX_BYTES, StrictJsonError, canonical, parse_untrusted

FORMAT = "orchestra/cassette/v2"
MAX_FILE_BYTES = 64 << 20
"""Size limit of a cassette. A line has at most 1 MiB (`parse_untrusted`)."""
MAX_CALLS = 10_000
RECORD_COMMAND = "pytest --record"
"""The command that records."""

_Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class CassetteError(OrchestraError):
    """A cassette is missing, unreadable, or has no matching record."""


class CassetteSource(EvidenceSource, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A source of evidence, parsed strictly."""


class CassetteEstimate(CallEstimate, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An estimate, parsed strictly."""


class CassetteCallError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The error of a call."""

    code: str
    reason: str
    hint: str = ""
    retryable: bool = False
    lasting: bool = False


class CassetteEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One line of a cassette: a call and its reply."""

    agent: str = ""
    tool: str = ""
    inputs: dict[str, Any]
    evidence: tuple[CassetteSource, ...] = ()
    feedback: tuple[str, ...] = ()
    escalate: bool = False
    tier: Annotated[int, msgspec.Meta(ge=0, le=8)] = 0
    """The index of the larger model, if there are several."""
    attempt: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1
    sample: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    """The index of the sample, if there are several."""
    label: Label = "internal"
    prompt: str = ""
    """A digest of the agent's prompt and output type."""
    value: Any = msgspec.UNSET
    refused: CassetteCallError | None = None
    cancelled: bool = False
    """The caller stopped waiting before a reply: a timeout, or another branch of a race was first."""
    seconds: _Seconds = 0.0
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    usage: Usage = NO_USAGE
    server: str = ""
    model: str = ""
    written: str = ""
    """The text that was streamed before the value."""
    sent: str = ""
    received: str = ""
    sent_base64: str = ""
    """The bytes, if they are not UTF-8 text."""
    received_base64: str = ""
    cost: CassetteEstimate | None = None
    """The recorded `estimate`."""
    tokens: _Count | None = None
    """The recorded `count_tokens`."""

    def __post_init__(self) -> None:
        if bool(self.agent) == bool(self.tool):
            raise ValueError("a call has either `agent` or `tool`")
        if (self.value is not msgspec.UNSET) + (self.refused is not None) + self.cancelled != 1:
            raise ValueError("a call has one of `value`, `refused` and `cancelled`")
        for name in ("sent_base64", "received_base64"):
            b64decode(getattr(self, name), validate=True)

    @property
    def kind(self) -> Literal["agent", "tool"]:
        """The kind of the callee."""
        return "agent" if self.agent else "tool"

    @property
    def name(self) -> str:
        """The name of the agent or tool."""
        return self.agent or self.tool

    def identity(self) -> dict[str, Any]:
        """The parts of the call that identify it."""
        evidence = [[source.name, source.text] for source in self.evidence]
        tier = self.tier or int(self.escalate)
        return _identity(self.kind, self.name, self.inputs, evidence, self.feedback, tier, self.attempt) | {
            "sample": self.sample
        }

    def to_reply(self) -> CallResult | CallError | None:
        """Returns the recorded reply; None for a cancelled call."""
        facts: dict[str, Any] = {
            "usage": self.usage,
            "server": self.server,
            "model": self.model,
            "sent": b64decode(self.sent_base64) or self.sent.encode(),
            "received": b64decode(self.received_base64) or self.received.encode(),
        }
        if self.refused is not None:
            refusal = self.refused
            return CallError(
                code=refusal.code,
                reason=refusal.reason,
                hint=refusal.hint,
                retryable=refusal.retryable,
                permanent=refusal.lasting,
                **facts,
            )
        return None if self.cancelled else CallResult(value=self.value, confidence=self.confidence, **facts)


def _identity(
    kind: str,
    name: str,
    inputs: dict[str, Any],
    evidence: list[list[str]],
    feedback: tuple[str, ...],
    tier: int,
    attempt: int,
) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": name,
        "inputs": inputs,
        "evidence": evidence,
        "feedback": list(feedback),
        "escalate": tier if tier > 1 else tier > 0,
        "attempt": attempt,
    }


def call_identity(call: CallRequest) -> dict[str, Any]:
    """Returns the identity of a call, without node, run, budget and label. Calls with the same identity get the same
    recorded replies.
    """
    evidence = [[source.name, source.text] for source in call.evidence]
    identity = _identity(call.kind, call.name, call.inputs, evidence, call.feedback, call.tier, call.attempt)
    return identity | {"sample": call.sample}


def read_cassette(path: Path) -> list[CassetteEntry]:
    """Returns the records of a cassette.

    Raises:
        CassetteError: C030, the file is missing; C031, it is invalid.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise missing_cassette_error(path) from None
    except OSError as error:
        raise CassetteError(
            "C031", f"{path} cannot be read: {error.strerror or error}", hint=f"record it again: {RECORD_COMMAND}"
        ) from error
    return parse_cassette(data, str(path))


def missing_cassette_error(path: Path, hint: str = "", former_path: Path | None = None) -> CassetteError:
    """Returns the error of a missing cassette. `former_path` is its path in earlier versions, if it exists there."""
    hint = hint or f"record it: {RECORD_COMMAND}"
    if former_path is None or former_path == path or not former_path.exists():
        return CassetteError("C030", f"there is no cassette {_relative_path(path)}", hint=hint)
    reason = (
        f"{_relative_path(former_path)} may be this test's, or that of a test with a similar name: "
        "earlier versions used one file for both"
    )
    move = f"mv {shlex.quote(str(_relative_path(former_path)))} {shlex.quote(str(_relative_path(path)))}"
    return CassetteError(
        "C030",
        f"there is no cassette {_relative_path(path)}",
        why=reason,
        hint=f"{hint}; or, if it is this test's only: {move}",
    )


def _relative_path(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def parse_cassette(data: bytes, name: str = "a cassette") -> list[CassetteEntry]:
    """Returns the records of a cassette's bytes. Raises `CassetteError` C031 with the number of the invalid line."""
    if len(data) > MAX_FILE_BYTES:
        raise CassetteError(
            "C031", f"{name} has more than {MAX_FILE_BYTES >> 20} MiB", hint="split the test; one test has one cassette"
        )
    try:
        lines = data.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise CassetteError(
            "C031", f"{name} is not UTF-8 text: {error.reason}", hint=f"record it again: {RECORD_COMMAND}"
        ) from error
    if len(lines) > MAX_CALLS + 1:
        raise CassetteError(
            "C031", f"{name} has more than {MAX_CALLS} calls", hint="split the test; one test has one cassette"
        )
    head = _parse_line(lines[0], name, 1, dict[str, str])
    if head != {"cassette": FORMAT}:
        raise _line_error(name, 1, lines[0], f'the first line is not {{"cassette": "{FORMAT}"}}')
    return [_parse_line(line, name, number, CassetteEntry) for number, line in enumerate(lines[1:], 2)]


def _parse_line(line: str, name: str, number: int, type_: Any) -> Any:
    try:
        return msgspec.convert(parse_untrusted(line), type_, strict=True)
    except (StrictJsonError, msgspec.ValidationError) as error:
        raise _line_error(name, number, line, str(error)) from error


def _line_error(name: str, number: int, line: str, reason: str) -> CassetteError:
    location = SourceLocation(name, number, 1, line[:160])
    return CassetteError(
        "C031", f"not a line of a cassette: {reason}", location=location, hint=f"record it again: {RECORD_COMMAND}"
    )


def encode_cassette(entries: Iterable[CassetteEntry]) -> bytes:
    """Returns the bytes of a cassette. Records are sorted by identity, so that recording again changes new records
    only.

    Raises:
        CassetteError: C031, a record could not be read back.
    """
    cassette_entries = sorted(entries, key=lambda entry: (entry.kind, entry.name, canonical(entry.identity())))
    lines = [msgspec.json.encode({"cassette": FORMAT}), *(_encode_entry(entry) for entry in cassette_entries)]
    data = b"\n".join(lines) + b"\n"
    parse_cassette(data, "what was recorded")
    return data


def _encode_entry(entry: CassetteEntry) -> bytes:
    """Returns one line. The request's bytes are left out if the line would be too long, because the inputs contain the
    same.
    """
    line = msgspec.json.encode(entry)
    if len(line) <= MAX_BYTES or not (entry.sent or entry.sent_base64):
        return line
    return msgspec.json.encode(msgspec.structs.replace(entry, sent="", sent_base64=""))
