"""The log of audits beside a certificate: which accepted outputs were drawn, and what somebody said of each. Pure: bytes in, bytes out.

Lines of JSON, appended and never changed; each has a digest of itself and of the line before, so that one which was altered, moved or
taken out is noticed. Each names its certificate: one file holds the watches over all that an agent ever had.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import msgspec

from orchestra.core.errors import InputError, Place
from orchestra.schema.strict_json import canonical, digest
from orchestra.verification.certificates.certify import percent
from orchestra.verification.certificates.claims_file import ClaimsCertificate
from orchestra.verification.certificates.drift import GAMMA, Drift
from orchestra.verification.certificates.file import Certificate
from orchestra.verification.certificates.row_fingerprints import Marks, Rows

FILE = "audits.jsonl"
MAX_BYTES = 64 << 20
FORMAT = "orchestra/audits/v1"
"""Where the chain of digests begins."""

Said: TypeAlias = Literal["right", "wrong", "unclear"]
Watched: TypeAlias = Certificate | ClaimsCertificate
"""What is watched over: of whole answers those that were accepted; of claims all, for a withheld one has nothing wrong in it."""
Unit: TypeAlias = tuple[str, str]
"""A run, and the path of a node in it."""


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An output that was drawn."""

    run: str
    node: str
    digest: str
    """Of its value."""
    score: float | None = None
    withheld: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether nothing of it was kept; not there of one that was accepted."""
    about: str | msgspec.UnsetType = msgspec.UNSET
    """The mark of the input that it answers, or of its group: one of each is drawn. Not there in logs of before."""

    @property
    def unit(self) -> Unit:
        """What it is known by."""
        return self.run, self.node


class _Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    certificate: str
    """The digest of the certificate, as it was made."""
    at: str
    """UTC, ISO 8601."""
    by: str = ""
    digest: str = ""
    """Of the digest of the line before and of everything else in this one."""


class Drawn(_Line, tag="drawn", frozen=True, kw_only=True):
    """Outputs were drawn for an audit, before anybody looked at them."""

    seed: int
    population: int
    """Outputs that there were to draw from, those of before left out."""
    since: str = ""
    until: str = ""
    outputs: tuple[Output, ...]


class Audited(_Line, tag="audited", frozen=True, kw_only=True):
    """Somebody has said of a drawn output whether it is right."""

    run: str
    node: str
    said: Said
    alpha: float
    """The working alpha afterwards. Lines of before it was bounded may have more than was promised, or less than 0."""
    evidence: float
    """Against the promise, afterwards; at most the greatest float."""
    gamma: Annotated[float, msgspec.Meta(ge=0, le=1)] = GAMMA

    @property
    def unit(self) -> Unit:
        """The output that it is about."""
        return self.run, self.node


class Voided(_Line, tag="voided", frozen=True, kw_only=True):
    """The certificate was voided. It stays on record here when another one takes its place."""

    why: str
    data: str
    """The name of the rows that it was made on, and the digests and marks that they are known again by."""
    rows: tuple[str, ...]
    marks: Marks | msgspec.UnsetType = msgspec.UNSET


Line: TypeAlias = Drawn | Audited | Voided
_decode = msgspec.json.Decoder(Line).decode
_TOP = 1.7e308


@dataclass(frozen=True, slots=True)
class Watch:
    """What a log says of one certificate."""

    drift: Drift
    drawn: dict[Unit, Output]
    audits: dict[Unit, Audited]
    voided: bool = False
    """Whether it says that the certificate was voided."""

    @property
    def open(self) -> list[Output]:
        """Outputs that were drawn and of which nobody has said anything, in the order of drawing."""
        return [output for unit, output in self.drawn.items() if unit not in self.audits]

    @property
    def unclear(self) -> int:
        """Of how many audited outputs nobody could tell."""
        return sum(audit.said == "unclear" for audit in self.audits.values())

    @property
    def broken(self) -> str:
        """Why the promise does not hold any more; empty as long as it does."""
        drift = self.drift
        if not drift.broken:
            return ""
        more = f", no more than {percent(drift.bound)} of this very threshold" if drift.bound > drift.promised else ""
        said = f"of audited answers {drift.told}, and {percent(drift.promised)} was promised{more}"
        return f"{said} (evidence {drift.highest:.3g}, and {drift.limit:.3g} voids)"


@dataclass(frozen=True, slots=True)
class Log:
    """A log's lines, and how many of the file's bytes they are: a last line without its end was cut off when it was written."""

    lines: tuple[Line, ...] = ()
    size: int = 0

    @classmethod
    def read(cls, data: bytes, place: Place) -> Log:
        """Of a file's bytes. Raises `InputError` V020 for a line that is none, or that was changed."""
        if len(data) > MAX_BYTES:
            raise _unfit(f"it has more than {MAX_BYTES >> 20} MiB", place)
        size = data.rfind(b"\n") + 1
        lines: list[Line] = []
        for number, text in enumerate(data[:size].split(b"\n")[:-1], 1):
            here = Place(place.file, number)
            try:
                line = _decode(text)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise _unfit(f"line {number} is no audit: {error}", here) from error
            if line.digest != _chained(lines[-1].digest if lines else FORMAT, line):
                raise _unfit(f"line {number}, or the one before it, was changed since it was written", here)
            lines.append(line)
        return cls(tuple(lines), size)

    def following(self, lines: Iterable[Line]) -> list[Line]:
        """The lines with their digests, as they follow on these."""
        before, made = self.lines[-1].digest if self.lines else FORMAT, list[Line]()
        for line in lines:
            made.append(msgspec.structs.replace(line, digest=_chained(before, line)))
            before = made[-1].digest
        return made

    def watch(self, certificate: Watched) -> Watch:
        """What it says of a certificate."""
        mark = certificate.original.digest
        drift, drawn, audits, voided = certificate.drift, dict[Unit, Output](), dict[Unit, Audited](), False
        for line in self.lines:
            if line.certificate != mark:
                continue
            if isinstance(line, Drawn):
                drawn |= {output.unit: output for output in line.outputs}
            elif isinstance(line, Voided):
                voided = True
            elif line.unit not in audits:
                audits[line.unit] = line
                drift = drift if line.said == "unclear" else drift.after(wrong=line.said == "wrong", gamma=line.gamma)
        return Watch(drift, drawn, audits, voided)

    def refuted(self, rows: Rows) -> Voided | None:
        """The first certificate of these rows, or of many of them, that was voided; None where none was."""
        return next((line for line in self.lines if isinstance(line, Voided) and rows.share(line.rows, line.marks)), None)


def among(watch: Watch, said: Sequence[tuple[Output, Said]]) -> list[tuple[Output, Said]]:
    """Verdicts in the order of drawing, with those on withheld answers, which are right, between them: were these told first, the bets
    would know beforehand which answers are the doubtful ones. Behind the last open answer they are told as well."""
    told = {output.unit: verdict for output, verdict in said}
    found, pending = list[tuple[Output, Said]](), list[tuple[Output, Said]]()
    for output in watch.open:
        if output.withheld:
            pending.append((output, "right"))
        elif output.unit in told:
            found += [*pending, (output, told[output.unit])]
            pending = []
    waits = any(not output.withheld and output.unit not in told for output in watch.open)
    return found if waits else found + pending


def audited(certificate: Watched, watch: Watch, said: Sequence[tuple[Output, Said]], by: str, at: str) -> list[Audited]:
    """The lines that verdicts on drawn outputs make, in their order. Nobody has to look at what was withheld."""
    lines: list[Audited] = []
    drift = watch.drift
    for output, verdict in said:
        drift = drift if verdict == "unclear" else drift.after(wrong=verdict == "wrong")
        against, mark = min(drift.evidence, _TOP), certificate.original.digest
        who = "" if output.withheld else by
        lines.append(
            Audited(certificate=mark, at=at, by=who, run=output.run, node=output.node, said=verdict, alpha=drift.alpha, evidence=against)
        )
    return lines


def voided(certificate: Watched, why: str, at: str) -> Voided:
    """The line that says of a certificate that it is void."""
    data = certificate.data
    return Voided(
        certificate=certificate.original.digest, at=at, why=why, data=data.name, rows=tuple(sorted(data.digests)), marks=data.marks
    )


def encoded(lines: Iterable[Line]) -> bytes:
    """Lines as they stand in the file."""
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def _chained(before: str, line: Line) -> str:
    return digest(canonical([before, {**msgspec.to_builtins(line), "digest": ""}]))


def _unfit(why: str, place: Place) -> InputError:
    return InputError("V020", f"the log of audits cannot be relied on: {why}", place=place, hint="restore the file from a copy")
