"""The file of a cassette: a line that names the format, then one line of JSON for each call and what came back.

A file is data: read strictly, within limits, nothing executed.
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
"""Bytes of a cassette at most. A line has at most 1 MiB (`parse_untrusted`)."""
MAX_CALLS = 10_000
RECORD_COMMAND = "pytest --record"
"""What a person types to record."""

_Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class CassetteError(OrchestraError):
    """A cassette that is not there, cannot be read, or does not have what is asked of it."""


class CassetteSource(EvidenceSource, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A source, read strictly."""


class CassetteEstimate(CallEstimate, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A measure, read strictly."""


class CassetteCallError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Why there was no value."""

    code: str
    reason: str
    hint: str = ""
    retryable: bool = False
    lasting: bool = False


class CassetteEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One line of a cassette: a call, and what came back."""

    agent: str = ""
    tool: str = ""
    inputs: dict[str, Any]
    evidence: tuple[CassetteSource, ...] = ()
    feedback: tuple[str, ...] = ()
    escalate: bool = False
    tier: Annotated[int, msgspec.Meta(ge=0, le=8)] = 0
    """Which of several larger models, where it was not the first."""
    attempt: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1
    sample: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    """Which of several samples, where several were drawn."""
    label: Label = "internal"
    prompt: str = ""
    """A digest of what the agent was asked with beside the inputs."""
    value: Any = msgspec.UNSET
    refused: CassetteCallError | None = None
    cancelled: bool = False
    """Nothing came before the caller went away: a timeout, or a race that another branch won."""
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
    """The bytes, where they are no UTF-8 text."""
    received_base64: str = ""
    cost: CassetteEstimate | None = None
    """What `estimate` gave."""
    tokens: _Count | None = None
    """What `count_tokens` gave."""

    def __post_init__(self) -> None:
        if bool(self.agent) == bool(self.tool):
            raise ValueError("a call has either `agent` or `tool`")
        if (self.value is not msgspec.UNSET) + (self.refused is not None) + self.cancelled != 1:
            raise ValueError("a call has one of `value`, `refused` and `cancelled`")
        for name in ("sent_base64", "received_base64"):
            b64decode(getattr(self, name), validate=True)

    @property
    def kind(self) -> Literal["agent", "tool"]:
        """Who was asked."""
        return "agent" if self.agent else "tool"

    @property
    def name(self) -> str:
        """The agent or the tool."""
        return self.agent or self.tool

    def identity(self) -> dict[str, Any]:
        """What the call says: the parts by which it is found again."""
        evidence = [[source.name, source.text] for source in self.evidence]
        tier = self.tier or int(self.escalate)
        return _identity(self.kind, self.name, self.inputs, evidence, self.feedback, tier, self.attempt) | {
            "sample": self.sample
        }

    def to_reply(self) -> CallResult | CallError | None:
        """What came back; None where the caller did not wait for it."""
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
    """What a call says, without node, run, budget and label: calls that say the same get the same recorded answers."""
    evidence = [[source.name, source.text] for source in call.evidence]
    said = _identity(call.kind, call.name, call.inputs, evidence, call.feedback, call.tier, call.attempt)
    return said | {"sample": call.sample}


def read_cassette(path: Path) -> list[CassetteEntry]:
    """The entries of a cassette. Raises `CassetteError` C030 where there is none, C031 for one that is not as
    `Recorder`
    writes it.
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
    """The error of a cassette that is not there; `former_path` is where it lay in earlier versions, should it be there."""
    hint = hint or f"record it: {RECORD_COMMAND}"
    if former_path is None or former_path == path or not former_path.exists():
        return CassetteError("C030", f"there is no cassette {_relative_path(path)}", hint=hint)
    why = (
        f"{_relative_path(former_path)} may be this test's, or another's whose name differs in a few signs: "
        "earlier versions gave them one file"
    )
    move = f"mv {shlex.quote(str(_relative_path(former_path)))} {shlex.quote(str(_relative_path(path)))}"
    return CassetteError(
        "C030",
        f"there is no cassette {_relative_path(path)}",
        why=why,
        hint=f"{hint}; or, if it is this test's alone: {move}",
    )


def _relative_path(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def parse_cassette(data: bytes, name: str = "a cassette") -> list[CassetteEntry]:
    """The entries of a cassette's bytes. Raises `CassetteError` C031 with the line that is wrong."""
    if len(data) > MAX_FILE_BYTES:
        raise CassetteError(
            "C031", f"{name} has more than {MAX_FILE_BYTES >> 20} MiB", hint="split the test; one test has one cassette"
        )
    try:
        lines = data.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise CassetteError(
            "C031", f"{name} is no UTF-8 text: {error.reason}", hint=f"record it again: {RECORD_COMMAND}"
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
    place = SourceLocation(name, number, 1, line[:160])
    return CassetteError(
        "C031", f"not a line of a cassette: {reason}", location=place, hint=f"record it again: {RECORD_COMMAND}"
    )


def encode_cassette(entries: Iterable[CassetteEntry]) -> bytes:
    """The bytes of a cassette: in the order of what the calls say, so that recording again changes only what is new.

    Raises `CassetteError` C031 for a call that would not be read back.
    """
    ordered = sorted(entries, key=lambda entry: (entry.kind, entry.name, canonical(entry.identity())))
    lines = [msgspec.json.encode({"cassette": FORMAT}), *(_encode_entry(entry) for entry in ordered)]
    data = b"\n".join(lines) + b"\n"
    parse_cassette(data, "what was recorded")
    return data


def _encode_entry(entry: CassetteEntry) -> bytes:
    """One line; without the request's bytes where they would make it too long, for the inputs say the same."""
    line = msgspec.json.encode(entry)
    if len(line) <= MAX_BYTES or not (entry.sent or entry.sent_base64):
        return line
    return msgspec.json.encode(msgspec.structs.replace(entry, sent="", sent_base64=""))
