"""The log of audits beside a certificate: which accepted outputs were drawn, and what somebody said of each. Pure: bytes in, bytes out.

Lines of JSON, appended and never changed; each has a digest of itself and of the line before, so that one which was altered, moved or
taken out is noticed. Each names its certificate: one file holds the watches over all that an agent ever had.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import msgspec

from orchestra.core.errors import InputError, SourceLocation
from orchestra.schema.strict_json import canonical, digest
from orchestra.verification.certificates.certify import format_percent
from orchestra.verification.certificates.claims_file import ClaimsCertificate
from orchestra.verification.certificates.drift import GAMMA, DriftMonitor
from orchestra.verification.certificates.file import Certificate
from orchestra.verification.certificates.row_fingerprints import RowFingerprints, RowSet

FILE_NAME = "audits.jsonl"
MAX_BYTES = 64 << 20
FORMAT = "orchestra/audits/v2"
"""Where the chain of digests begins."""

AuditVerdict: TypeAlias = Literal["right", "wrong", "unclear"]
AuditedCertificate: TypeAlias = Certificate | ClaimsCertificate
"""What is watched over: of whole answers those that were accepted; of claims all, for a withheld one has nothing wrong in it."""
OutputKey: TypeAlias = tuple[str, str]
"""A run, and the path of a node in it."""


class SampledOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An output that was drawn."""

    run: str
    node: str
    digest: str
    """Of its value."""
    score: float | None = None
    withheld: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether nothing of it was kept; not there of one that was accepted."""
    input_fingerprint: str | msgspec.UnsetType = msgspec.UNSET
    """The mark of the input that it answers, or of its group: one of each is drawn. Not there in logs of before."""

    @property
    def key(self) -> OutputKey:
        """What it is known by."""
        return self.run, self.node


class _BaseEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    certificate: str
    """The digest of the certificate, as it was made."""
    at: str
    """UTC, ISO 8601."""
    by: str = ""
    digest: str = ""
    """Of the digest of the line before and of everything else in this one."""


class OutputsSampled(_BaseEntry, tag="drawn", frozen=True, kw_only=True):
    """Outputs were drawn for an audit, before anybody looked at them."""

    seed: int
    population: int
    """Outputs that there were to draw from, those of before left out."""
    since: str = ""
    until: str = ""
    outputs: tuple[SampledOutput, ...]


class OutputAudited(_BaseEntry, tag="audited", frozen=True, kw_only=True):
    """Somebody has said of a drawn output whether it is right."""

    run: str
    node: str
    verdict: AuditVerdict
    alpha: float
    """The working alpha afterwards. Lines of before it was bounded may have more than was promised, or less than 0."""
    evidence: float
    """Against the promise, afterwards; at most the greatest float."""
    gamma: Annotated[float, msgspec.Meta(ge=0, le=1)] = GAMMA

    @property
    def key(self) -> OutputKey:
        """The output that it is about."""
        return self.run, self.node


class CertificateVoided(_BaseEntry, tag="voided", frozen=True, kw_only=True):
    """The certificate was voided. It stays on record here when another one takes its place."""

    reason: str
    data: str
    """The name of the rows that it was made on, and the digests and marks that they are known again by."""
    row_digests: tuple[str, ...]
    fingerprints: RowFingerprints | msgspec.UnsetType = msgspec.UNSET


AuditEntry: TypeAlias = OutputsSampled | OutputAudited | CertificateVoided
_decode = msgspec.json.Decoder(AuditEntry).decode
_MAX_EVIDENCE = 1.7e308


@dataclass(frozen=True, slots=True)
class AuditState:
    """What a log says of one certificate."""

    drift: DriftMonitor
    sampled: dict[OutputKey, SampledOutput]
    audits: dict[OutputKey, OutputAudited]
    is_voided: bool = False
    """Whether it says that the certificate was voided."""

    @property
    def pending(self) -> list[SampledOutput]:
        """Outputs that were drawn and of which nobody has said anything, in the order of drawing."""
        return [output for unit, output in self.sampled.items() if unit not in self.audits]

    @property
    def unclear_count(self) -> int:
        """Of how many audited outputs nobody could tell."""
        return sum(audit.verdict == "unclear" for audit in self.audits.values())

    @property
    def violation(self) -> str:
        """Why the promise does not hold any more; empty as long as it does."""
        drift = self.drift
        if not drift.is_violated:
            return ""
        more = (
            f", no more than {format_percent(drift.tested_rate)} of this very threshold"
            if drift.tested_rate > drift.promised
            else ""
        )
        observed = f"of audited answers {drift.summary}, and {format_percent(drift.promised)} was promised{more}"
        return f"{observed} (evidence {drift.max_evidence:.3g}, and {drift.evidence_limit:.3g} voids)"


@dataclass(frozen=True, slots=True)
class AuditLog:
    """A log's lines, and how many of the file's bytes they are: a last line without its end was cut off when it was written."""

    entries: tuple[AuditEntry, ...] = ()
    size: int = 0

    @classmethod
    def from_bytes(cls, data: bytes, place: SourceLocation) -> AuditLog:
        """Of a file's bytes. Raises `InputError` V020 for a line that is none, or that was changed."""
        if len(data) > MAX_BYTES:
            raise _log_error(f"it has more than {MAX_BYTES >> 20} MiB", place)
        size = data.rfind(b"\n") + 1
        lines: list[AuditEntry] = []
        for number, text in enumerate(data[:size].split(b"\n")[:-1], 1):
            here = SourceLocation(place.file, number)
            try:
                line = _decode(text)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise _log_error(f"line {number} is no audit: {error}", here) from error
            if line.digest != _chain_digest(lines[-1].digest if lines else FORMAT, line):
                raise _log_error(f"line {number}, or the one before it, was changed since it was written", here)
            lines.append(line)
        return cls(tuple(lines), size)

    def with_digests(self, lines: Iterable[AuditEntry]) -> list[AuditEntry]:
        """The lines with their digests, as they follow on these."""
        before, entries = self.entries[-1].digest if self.entries else FORMAT, list[AuditEntry]()
        for line in lines:
            entries.append(msgspec.structs.replace(line, digest=_chain_digest(before, line)))
            before = entries[-1].digest
        return entries

    def audit_state(self, certificate: AuditedCertificate) -> AuditState:
        """What it says of a certificate."""
        certificate_digest = certificate.original.digest
        drift, drawn, audits, voided = (
            certificate.drift,
            dict[OutputKey, SampledOutput](),
            dict[OutputKey, OutputAudited](),
            False,
        )
        for line in self.entries:
            if line.certificate != certificate_digest:
                continue
            if isinstance(line, OutputsSampled):
                drawn |= {output.key: output for output in line.outputs}
            elif isinstance(line, CertificateVoided):
                voided = True
            elif line.key not in audits:
                audits[line.key] = line
                drift = (
                    drift
                    if line.verdict == "unclear"
                    else drift.with_audit(wrong=line.verdict == "wrong", gamma=line.gamma)
                )
        return AuditState(drift, drawn, audits, voided)

    def find_voided(self, rows: RowSet) -> CertificateVoided | None:
        """The first certificate of these rows, or of many of them, that was voided; None where none was."""
        return next(
            (
                line
                for line in self.entries
                if isinstance(line, CertificateVoided) and rows.overlaps(line.row_digests, line.fingerprints)
            ),
            None,
        )


def in_sampling_order(
    state: AuditState, verdicts: Sequence[tuple[SampledOutput, AuditVerdict]]
) -> list[tuple[SampledOutput, AuditVerdict]]:
    """Verdicts in the order of drawing, with those on withheld answers, which are right, between them: were these told first, the bets
    would know beforehand which answers are the doubtful ones. Behind the last open answer they are told as well."""
    verdict_by_key = {output.key: verdict for output, verdict in verdicts}
    found, pending = list[tuple[SampledOutput, AuditVerdict]](), list[tuple[SampledOutput, AuditVerdict]]()
    for output in state.pending:
        if output.withheld:
            pending.append((output, "right"))
        elif output.key in verdict_by_key:
            found += [*pending, (output, verdict_by_key[output.key])]
            pending = []
    waits = any(not output.withheld and output.key not in verdict_by_key for output in state.pending)
    return found if waits else found + pending


def audit_entries(
    certificate: AuditedCertificate,
    state: AuditState,
    verdicts: Sequence[tuple[SampledOutput, AuditVerdict]],
    by: str,
    at: str,
) -> list[OutputAudited]:
    """The lines that verdicts on drawn outputs make, in their order. Nobody has to look at what was withheld."""
    lines: list[OutputAudited] = []
    drift = state.drift
    for output, verdict in verdicts:
        drift = drift if verdict == "unclear" else drift.with_audit(wrong=verdict == "wrong")
        against, certificate_digest = min(drift.evidence, _MAX_EVIDENCE), certificate.original.digest
        who = "" if output.withheld else by
        lines.append(
            OutputAudited(
                certificate=certificate_digest,
                at=at,
                by=who,
                run=output.run,
                node=output.node,
                verdict=verdict,
                alpha=drift.alpha,
                evidence=against,
            )
        )
    return lines


def void_entry(certificate: AuditedCertificate, why: str, at: str) -> CertificateVoided:
    """The line that says of a certificate that it is void."""
    data = certificate.data
    return CertificateVoided(
        certificate=certificate.original.digest,
        at=at,
        reason=why,
        data=data.name,
        row_digests=tuple(sorted(data.digests)),
        fingerprints=data.fingerprints,
    )


def encode(lines: Iterable[AuditEntry]) -> bytes:
    """Lines as they stand in the file."""
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def _chain_digest(before: str, line: AuditEntry) -> str:
    return digest(canonical([before, {**msgspec.to_builtins(line), "digest": ""}]))


def _log_error(why: str, place: SourceLocation) -> InputError:
    return InputError(
        "V020", f"the log of audits cannot be relied on: {why}", location=place, hint="restore the file from a copy"
    )
