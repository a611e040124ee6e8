"""The audit log beside a certificate: which accepted outputs were sampled, and the verdict of a person on each. Pure.

The log has JSON lines that are appended and never changed. The digest of a line covers the digest of the previous line,
so a changed, moved or missing line is detected. Each line names its certificate: one file has the audits of all
certificates of an agent.
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
"""Start of the chain of digests."""

AuditVerdict: TypeAlias = Literal["right", "wrong", "unclear"]
AuditedCertificate: TypeAlias = Certificate | ClaimsCertificate
"""What is audited: with a certificate of outputs the accepted outputs; with one of claims all outputs, because a
withheld one has no wrong part.
"""
OutputKey: TypeAlias = tuple[str, str]
"""A run, and the path of a node in it."""


class SampledOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An output that was sampled for an audit."""

    run: str
    node: str
    digest: str
    """Digest of the value."""
    score: float | None = None
    withheld: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether no part of it was kept. Not present for an accepted output."""
    input_fingerprint: str | msgspec.UnsetType = msgspec.UNSET
    """Fingerprint of its input, or of its group: one output of each is sampled. Not present in older logs."""

    @property
    def key(self) -> OutputKey:
        """Run and node."""
        return self.run, self.node


class _BaseEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    certificate: str
    """Digest of the certificate before any voiding."""
    at: str
    """UTC, ISO 8601."""
    by: str = ""
    digest: str = ""
    """Digest of the previous line's digest and everything else in this line."""


class OutputsSampled(_BaseEntry, tag="drawn", frozen=True, kw_only=True):
    """Outputs were sampled for an audit, before any verdict."""

    seed: int
    population: int
    """Outputs to sample from, without those sampled before."""
    since: str = ""
    until: str = ""
    outputs: tuple[SampledOutput, ...]


class OutputAudited(_BaseEntry, tag="audited", frozen=True, kw_only=True):
    """A person judged a sampled output."""

    run: str
    node: str
    verdict: AuditVerdict
    alpha: float
    """Working alpha afterwards. Lines from before it was bounded may exceed the guaranteed alpha, or be below 0."""
    evidence: float
    """Evidence against the guarantee afterwards, at most the largest float."""
    gamma: Annotated[float, msgspec.Meta(ge=0, le=1)] = GAMMA

    @property
    def key(self) -> OutputKey:
        """Run and node of the output."""
        return self.run, self.node


class CertificateVoided(_BaseEntry, tag="voided", frozen=True, kw_only=True):
    """The certificate was voided. The line remains when another certificate replaces it."""

    reason: str
    data: str
    """Name of the data of the certificate. The digests and fingerprints identify its rows."""
    row_digests: tuple[str, ...]
    fingerprints: RowFingerprints | msgspec.UnsetType = msgspec.UNSET


AuditEntry: TypeAlias = OutputsSampled | OutputAudited | CertificateVoided
_decode = msgspec.json.Decoder(AuditEntry).decode
_MAX_EVIDENCE = 1.7e308


@dataclass(frozen=True, slots=True)
class AuditState:
    """The audits of one certificate."""

    drift: DriftMonitor
    sampled: dict[OutputKey, SampledOutput]
    audits: dict[OutputKey, OutputAudited]
    is_voided: bool = False
    """Whether the log says that the certificate was voided."""

    @property
    def pending(self) -> list[SampledOutput]:
        """Sampled outputs without a verdict, in the order of sampling."""
        return [output for unit, output in self.sampled.items() if unit not in self.audits]

    @property
    def unclear_count(self) -> int:
        """Number of audited outputs whose verdict is `unclear`."""
        return sum(audit.verdict == "unclear" for audit in self.audits.values())

    @property
    def violation(self) -> str:
        """Why the guarantee is violated; empty if it is not."""
        drift = self.drift
        if not drift.is_violated:
            return ""
        suffix = (
            f", no more than {format_percent(drift.tested_rate)} of this threshold"
            if drift.tested_rate > drift.guaranteed_alpha
            else ""
        )
        observation = (
            f"of audited answers {drift.summary}, and {format_percent(drift.guaranteed_alpha)} was guaranteed{suffix}"
        )
        return f"{observation} (evidence {drift.max_evidence:.3g}, and {drift.evidence_limit:.3g} voids)"


@dataclass(frozen=True, slots=True)
class AuditLog:
    """The lines of a log, and their size in bytes. A last line without a line end (a torn write) is ignored."""

    entries: tuple[AuditEntry, ...] = ()
    size: int = 0

    @classmethod
    def from_bytes(cls, data: bytes, location: SourceLocation) -> AuditLog:
        """Decodes a file. Raises `InputError` V020 for an invalid or modified line."""
        if len(data) > MAX_BYTES:
            raise _log_error(f"it has more than {MAX_BYTES >> 20} MiB", location)
        size = data.rfind(b"\n") + 1
        lines: list[AuditEntry] = []
        for number, text in enumerate(data[:size].split(b"\n")[:-1], 1):
            line_location = SourceLocation(location.file, number)
            try:
                line = _decode(text)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise _log_error(f"line {number} is not an audit: {error}", line_location) from error
            if line.digest != _chain_digest(lines[-1].digest if lines else FORMAT, line):
                raise _log_error(
                    f"line {number}, or the one before it, was changed after it was written", line_location
                )
            lines.append(line)
        return cls(tuple(lines), size)

    def with_digests(self, lines: Iterable[AuditEntry]) -> list[AuditEntry]:
        """Returns the entries with their digests, as they follow these lines."""
        before, entries = self.entries[-1].digest if self.entries else FORMAT, list[AuditEntry]()
        for line in lines:
            entries.append(msgspec.structs.replace(line, digest=_chain_digest(before, line)))
            before = entries[-1].digest
        return entries

    def audit_state(self, certificate: AuditedCertificate) -> AuditState:
        """Returns the audits of a certificate."""
        certificate_digest = certificate.original.digest
        drift, drawn_outputs, audits, is_void = (
            certificate.drift,
            dict[OutputKey, SampledOutput](),
            dict[OutputKey, OutputAudited](),
            False,
        )
        for line in self.entries:
            if line.certificate != certificate_digest:
                continue
            if isinstance(line, OutputsSampled):
                drawn_outputs |= {output.key: output for output in line.outputs}
            elif isinstance(line, CertificateVoided):
                is_void = True
            elif line.key not in audits:
                audits[line.key] = line
                drift = (
                    drift
                    if line.verdict == "unclear"
                    else drift.with_audit(wrong=line.verdict == "wrong", gamma=line.gamma)
                )
        return AuditState(drift, drawn_outputs, audits, is_void)

    def find_voided(self, rows: RowSet) -> CertificateVoided | None:
        """Returns the first voided certificate of these rows, or of many of them; None if there is none."""
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
    """Returns verdicts in the order of sampling, with those on withheld outputs, which are right, in their places.

    If the withheld ones came first, the bets would know in advance which outputs are doubtful. Those after the last
    open output are included.
    """
    verdict_by_key = {output.key: verdict for output, verdict in verdicts}
    outputs, pending = list[tuple[SampledOutput, AuditVerdict]](), list[tuple[SampledOutput, AuditVerdict]]()
    for output in state.pending:
        if output.withheld:
            pending.append((output, "right"))
        elif output.key in verdict_by_key:
            outputs += [*pending, (output, verdict_by_key[output.key])]
            pending = []
    waits = any(not output.withheld and output.key not in verdict_by_key for output in state.pending)
    return outputs if waits else outputs + pending


def audit_entries(
    certificate: AuditedCertificate,
    state: AuditState,
    verdicts: Sequence[tuple[SampledOutput, AuditVerdict]],
    by: str,
    at: str,
) -> list[OutputAudited]:
    """Builds the entries for verdicts on sampled outputs, in order. Withheld outputs have no auditor."""
    lines: list[OutputAudited] = []
    drift = state.drift
    for output, verdict in verdicts:
        drift = drift if verdict == "unclear" else drift.with_audit(wrong=verdict == "wrong")
        against, certificate_digest = min(drift.evidence, _MAX_EVIDENCE), certificate.original.digest
        author = "" if output.withheld else by
        lines.append(
            OutputAudited(
                certificate=certificate_digest,
                at=at,
                by=author,
                run=output.run,
                node=output.node,
                verdict=verdict,
                alpha=drift.alpha,
                evidence=against,
            )
        )
    return lines


def void_entry(certificate: AuditedCertificate, why: str, at: str) -> CertificateVoided:
    """Builds the entry that voids a certificate."""
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
    """Encodes entries as lines."""
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def _chain_digest(before: str, line: AuditEntry) -> str:
    return digest(canonical([before, {**msgspec.to_builtins(line), "digest": ""}]))


def _log_error(reason: str, location: SourceLocation) -> InputError:
    return InputError(
        "V020", f"the audit log is invalid: {reason}", location=location, hint="restore the file from a copy"
    )
