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

from orchestra.core.errors import OrchestraError, Place
from orchestra.core.events import NOTHING, Usage
from orchestra.core.labels import Label
from orchestra.core.protocols import Call, Done, Measure, Refused, Source
from orchestra.schema.strict_json import MAX_BYTES, NotStrictJSON, canonical, parse_untrusted

FORMAT = "orchestra/cassette/v1"
MAX_FILE = 64 << 20
"""Bytes of a cassette at most. A line has at most 1 MiB (`parse_untrusted`)."""
MAX_CALLS = 10_000
RECORD = "pytest --record"
"""What a person types to record."""

_Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class CassetteError(OrchestraError):
    """A cassette that is not there, cannot be read, or does not have what is asked of it."""


class Text(Source, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A source, read strictly."""


class Cost(Measure, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A measure, read strictly."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Why there was no value."""

    code: str
    reason: str
    hint: str = ""
    retryable: bool = False
    lasting: bool = False


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One line of a cassette: a call, and what came back."""

    agent: str = ""
    tool: str = ""
    inputs: dict[str, Any]
    evidence: tuple[Text, ...] = ()
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
    refused: Refusal | None = None
    cancelled: bool = False
    """Nothing came before the caller went away: a timeout, or a race that another branch won."""
    seconds: _Seconds = 0.0
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    usage: Usage = NOTHING
    server: str = ""
    model: str = ""
    written: str = ""
    """The text that was streamed before the value."""
    sent: str = ""
    received: str = ""
    sent_base64: str = ""
    """The bytes, where they are no UTF-8 text."""
    received_base64: str = ""
    cost: Cost | None = None
    """What `measure` gave."""
    tokens: _Count | None = None
    """What `count` gave."""

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

    def asked(self) -> dict[str, Any]:
        """What the call says: the parts by which it is found again."""
        evidence = [[source.name, source.text] for source in self.evidence]
        tier = self.tier or int(self.escalate)
        return _asked(self.kind, self.name, self.inputs, evidence, self.feedback, tier, self.attempt) | {"sample": self.sample}

    def reply(self) -> Done | Refused | None:
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
            return Refused(
                code=refusal.code, reason=refusal.reason, hint=refusal.hint, retryable=refusal.retryable, lasting=refusal.lasting, **facts
            )
        return None if self.cancelled else Done(value=self.value, confidence=self.confidence, **facts)


def _asked(
    kind: str, name: str, inputs: dict[str, Any], evidence: list[list[str]], feedback: tuple[str, ...], tier: int, attempt: int
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


def asked(call: Call) -> dict[str, Any]:
    """What a call says, without node, run, budget and label: calls that say the same get the same recorded answers."""
    evidence = [[source.name, source.text] for source in call.evidence]
    said = _asked(call.kind, call.name, call.inputs, evidence, call.feedback, call.tier, call.attempt)
    return said | {"sample": call.sample}


def read(path: Path) -> list[Entry]:
    """The entries of a cassette. Raises `CassetteError` C030 where there is none, C031 for one that is not as `Recorder` writes it."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise missing(path) from None
    except OSError as error:
        raise CassetteError("C031", f"{path} cannot be read: {error.strerror or error}", hint=f"record it again: {RECORD}") from error
    return parse(data, str(path))


def missing(path: Path, hint: str = "", formerly: Path | None = None) -> CassetteError:
    """The error of a cassette that is not there; `formerly` is where it lay in earlier versions, should it be there."""
    hint = hint or f"record it: {RECORD}"
    if formerly is None or formerly == path or not formerly.exists():
        return CassetteError("C030", f"there is no cassette {_shown(path)}", hint=hint)
    why = f"{_shown(formerly)} may be this test's, or another's whose name differs in a few signs: earlier versions gave them one file"
    move = f"mv {shlex.quote(str(_shown(formerly)))} {shlex.quote(str(_shown(path)))}"
    return CassetteError("C030", f"there is no cassette {_shown(path)}", why=why, hint=f"{hint}; or, if it is this test's alone: {move}")


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def parse(data: bytes, name: str = "a cassette") -> list[Entry]:
    """The entries of a cassette's bytes. Raises `CassetteError` C031 with the line that is wrong."""
    if len(data) > MAX_FILE:
        raise CassetteError("C031", f"{name} has more than {MAX_FILE >> 20} MiB", hint="split the test; one test has one cassette")
    try:
        lines = data.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise CassetteError("C031", f"{name} is no UTF-8 text: {error.reason}", hint=f"record it again: {RECORD}") from error
    if len(lines) > MAX_CALLS + 1:
        raise CassetteError("C031", f"{name} has more than {MAX_CALLS} calls", hint="split the test; one test has one cassette")
    head = _line(lines[0], name, 1, dict[str, str])
    if head != {"cassette": FORMAT}:
        raise _wrong(name, 1, lines[0], f'the first line is not {{"cassette": "{FORMAT}"}}')
    return [_line(line, name, number, Entry) for number, line in enumerate(lines[1:], 2)]


def _line(line: str, name: str, number: int, type_: Any) -> Any:
    try:
        return msgspec.convert(parse_untrusted(line), type_, strict=True)
    except (NotStrictJSON, msgspec.ValidationError) as error:
        raise _wrong(name, number, line, str(error)) from error


def _wrong(name: str, number: int, line: str, reason: str) -> CassetteError:
    place = Place(name, number, 1, line[:160])
    return CassetteError("C031", f"not a line of a cassette: {reason}", place=place, hint=f"record it again: {RECORD}")


def render(entries: Iterable[Entry]) -> bytes:
    """The bytes of a cassette: in the order of what the calls say, so that recording again changes only what is new.

    Raises `CassetteError` C031 for a call that would not be read back.
    """
    ordered = sorted(entries, key=lambda entry: (entry.kind, entry.name, canonical(entry.asked())))
    lines = [msgspec.json.encode({"cassette": FORMAT}), *(_spelt(entry) for entry in ordered)]
    data = b"\n".join(lines) + b"\n"
    parse(data, "what was recorded")
    return data


def _spelt(entry: Entry) -> bytes:
    """One line; without the request's bytes where they would make it too long, for the inputs say the same."""
    line = msgspec.json.encode(entry)
    if len(line) <= MAX_BYTES or not (entry.sent or entry.sent_base64):
        return line
    return msgspec.json.encode(msgspec.structs.replace(entry, sent="", sent_base64=""))
