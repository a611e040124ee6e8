"""The log of audits beside a certificate, on disk. A step is recorded before it takes effect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestra.agents.registry import Registry
from orchestra.app import certificates
from orchestra.app.certificates import read_certificate, read_claims_certificate
from orchestra.core.atomic_files import write_file
from orchestra.core.errors import InputError, OrchestraError, SourceLocation
from orchestra.core.settings import Settings
from orchestra.learn.certification import append_only
from orchestra.verification.certificates import audits
from orchestra.verification.certificates.audits import (
    AuditedCertificate,
    AuditEntry,
    AuditLog,
    AuditState,
    AuditVerdict,
    OutputAudited,
    OutputsSampled,
    SampledOutput,
)
from orchestra.verification.certificates.claims_file import FILE_NAME as CLAIMS
from orchestra.verification.certificates.claims_file import ClaimsCertificate
from orchestra.verification.certificates.file import FILE_NAME
from orchestra.verification.certificates.row_fingerprints import RowSet


@dataclass(frozen=True, slots=True)
class AuditLogFile:
    """The audit log of one certificate, on disk."""

    path: Path
    certificate: AuditedCertificate

    def log(self) -> AuditLog:
        """Reads the log.

        Raises:
            InputError: V020 if the log is invalid.
        """
        return read_log(self.path)

    def audit_state(self) -> AuditState:
        """Returns the state of the audit.

        Raises:
            InputError: V020 if the log is invalid.
        """
        return self.log().audit_state(self.certificate)

    def void_certificate(self, file: Path) -> str:
        """Marks the certificate as void if audits refute it. Idempotent; a certificate that has replaced it meanwhile
        is not changed.

        Returns:
            The reason; empty if the guarantee is not refuted.

        Raises:
            InputError: V020 if the log is invalid; V003 to V005 if the certificate is invalid.
            OrchestraError: C023 if the certificate cannot be written.
        """
        reason = self.audit_state().violation
        if reason and not self.certificate.void_reason:
            self._append(
                lambda watch: () if watch.is_voided else (audits.void_entry(self.certificate, reason, _now()),)
            )
            if not self.is_replaced(file):
                replace_file(file, self.certificate.mark_void(reason).to_bytes())
        return reason

    def is_replaced(self, file: Path) -> bool:
        """Returns whether another certificate has replaced this one.

        Raises:
            InputError: V003 to V005 if the current certificate is invalid.
        """
        if not file.exists():
            return False
        certificate = self.certificate
        now = (read_claims_certificate if isinstance(certificate, ClaimsCertificate) else read_certificate)(
            file, certificate.agent
        )
        return now.original.digest != certificate.original.digest

    def record_sample(
        self, outputs: Sequence[SampledOutput], population: int, seed: int, period: tuple[str, str]
    ) -> AuditState:
        """Records a sample; it is on disk when the call returns. Outputs that another process has sampled meanwhile are
        left out.
        """

        def create_entries(watch: AuditState) -> Iterator[AuditEntry]:
            """Yields the entry of the outputs that the log does not have yet."""
            input_fingerprints = {
                output.input_fingerprint for output in watch.sampled.values() if output.input_fingerprint
            }
            fresh = tuple(
                output
                for output in outputs
                if output.key not in watch.sampled and output.input_fingerprint not in input_fingerprints
            )
            if fresh:
                since, until = period
                common = {"certificate": self.certificate.original.digest, "at": _now()}
                yield OutputsSampled(
                    **common, seed=seed, population=population, since=since, until=until, outputs=fresh
                )

        return self._append(create_entries)

    def record_verdicts(self, verdicts: Sequence[tuple[SampledOutput, AuditVerdict]], by: str) -> AuditState:
        """Records verdicts on sampled outputs and on withheld answers among them; they are on disk when the call
        returns. A verdict that another process has recorded meanwhile is kept.
        """

        def create_entries(watch: AuditState) -> Iterable[OutputAudited]:
            """Returns an entry for each output without a verdict."""
            fresh = [(output, verdict) for output, verdict in verdicts if output.key not in watch.audits]
            return audits.audit_entries(self.certificate, watch, audits.in_sampling_order(watch, fresh), by, _now())

        return self._append(create_entries)

    def _append(self, create_entries: Callable[[AuditState], Iterable[AuditEntry]]) -> AuditState:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with append_only.open_locked(self.path) as file:
                log = AuditLog.from_bytes(append_only.read(file, audits.MAX_BYTES), SourceLocation(str(self.path), 1))
                if data := audits.encode(log.with_digests(create_entries(log.audit_state(self.certificate)))):
                    append_only.write(file, data, log.size)
        except OSError as error:
            raise _unusable_error(self.path, error) from error
        return self.audit_state()


def read_log(path: Path) -> AuditLog:
    """Reads an audit log; an empty one if there is no file.

    Raises:
        InputError: V020 if the log is invalid.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise _unusable_error(path, error) from error
    return AuditLog.from_bytes(data, SourceLocation(str(path), 1))


def refuse_refuted_rows(
    settings: Settings, registry: Registry, agent: str, rows: RowSet, *, claims: bool = False
) -> None:
    """Refuses rows on which audits have refuted a certificate of the agent: such rows support no guarantee, at another
    alpha or with another seed either.

    Raises:
        InputError: V023 if many of the rows are of a refuted certificate; V020 if the log is invalid.
    """
    file = certificates.writable_path(settings, registry, agent, CLAIMS if claims else FILE_NAME)
    path, certificate = (
        file.with_name(audits.FILE_NAME),
        _current_certificate(certificates.find_certificate(settings, registry, agent, file.name), agent, claims=claims),
    )
    name = violation = ""
    if certificate is not None and rows.overlaps(certificate.data.digests, certificate.data.fingerprints):
        name, violation = (
            certificate.data.name,
            certificate.void_reason or AuditLogFile(path, certificate).audit_state().violation,
        )
    if not violation and (line := read_log(path).find_voided(rows)) is not None:
        name, violation = line.data, line.reason
    if violation:
        reason = (
            f"audits have voided the certificate of {agent!r} that was made on many of these rows, {name}: {violation}"
        )
        option = " --claims" if claims else ""
        raise InputError(
            "V023",
            reason,
            hint=f"use other rows that represent current inputs: orchestra certify {agent}{option} --data FILE",
        )


def _current_certificate(file: Path | None, agent: str, *, claims: bool) -> AuditedCertificate | None:
    """Returns the current certificate; None if it is missing or invalid."""
    try:
        return None if file is None else (read_claims_certificate if claims else read_certificate)(file, agent)
    except InputError:
        return None


def replace_file(file: Path, data: bytes) -> None:
    """Writes a file atomically, also against concurrent writers.

    Raises:
        OrchestraError: C023 if it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, data)
    except OSError as error:
        raise OrchestraError(
            "C023", f"{file} cannot be written: {error.strerror or error}", hint="name another file with --out"
        ) from error


def _unusable_error(path: Path, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError("V020", f"the log of audits cannot be used: {path}: {reason}", hint="it must be a writable file")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
