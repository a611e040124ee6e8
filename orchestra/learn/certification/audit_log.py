"""The book of audits: the log beside a certificate, on disk. Each step stands there before anybody relies on it."""

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
    """The log of audits of one certificate, on disk."""

    path: Path
    certificate: AuditedCertificate

    def log(self) -> AuditLog:
        """What stands in it. Raises `InputError` V020."""
        return read_log(self.path)

    def audit_state(self) -> AuditState:
        """How the watch over the certificate stands. Raises `InputError` V020."""
        return self.log().audit_state(self.certificate)

    def void_certificate(self, file: Path) -> str:
        """Writes into the certificate why audits found it broken; gives the reason, empty where the promise holds. Idempotent.

        One that has taken its place meanwhile stays as it is. Raises `InputError` V020, and V003 to V005 where what lies there now is no
        certificate; `OrchestraError` C023 where it cannot be written.
        """
        why = self.audit_state().violation
        if why and not self.certificate.void_reason:
            self._append(lambda watch: () if watch.is_voided else (audits.void_entry(self.certificate, why, _now()),))
            if not self.is_replaced(file):
                replace_file(file, self.certificate.mark_void(why).to_bytes())
        return why

    def is_replaced(self, file: Path) -> bool:
        """Whether another certificate lies there by now. Raises `InputError` V003 to V005 where what lies there is none."""
        if not file.exists():
            return False
        watched = self.certificate
        now = (read_claims_certificate if isinstance(watched, ClaimsCertificate) else read_certificate)(
            file, watched.agent
        )
        return now.original.digest != watched.original.digest

    def record_sample(
        self, outputs: Sequence[SampledOutput], population: int, seed: int, period: tuple[str, str]
    ) -> AuditState:
        """Writes down what was drawn, on disk when it returns. Outputs that somebody else drew meanwhile are his."""

        def lines(watch: AuditState) -> Iterator[AuditEntry]:
            known = {output.input_fingerprint for output in watch.sampled.values() if output.input_fingerprint}
            fresh = tuple(
                output
                for output in outputs
                if output.key not in watch.sampled and output.input_fingerprint not in known
            )
            if fresh:
                since, until = period
                told = {"certificate": self.certificate.original.digest, "at": _now()}
                yield OutputsSampled(**told, seed=seed, population=population, since=since, until=until, outputs=fresh)

        return self._append(lines)

    def record_verdicts(self, verdicts: Sequence[tuple[SampledOutput, AuditVerdict]], by: str) -> AuditState:
        """Writes down verdicts on drawn outputs, and on withheld answers that were drawn between them, on disk when it returns. One that
        somebody else has judged meanwhile stays as it is."""

        def lines(watch: AuditState) -> Iterable[OutputAudited]:
            fresh = [(output, verdict) for output, verdict in verdicts if output.key not in watch.audits]
            return audits.audit_entries(self.certificate, watch, audits.in_sampling_order(watch, fresh), by, _now())

        return self._append(lines)

    def _append(self, made: Callable[[AuditState], Iterable[AuditEntry]]) -> AuditState:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with append_only.open_locked(self.path) as file:
                log = AuditLog.from_bytes(append_only.read(file, audits.MAX_BYTES), SourceLocation(str(self.path), 1))
                if data := audits.encode(log.with_digests(made(log.audit_state(self.certificate)))):
                    append_only.write(file, data, log.size)
        except OSError as error:
            raise _unusable_error(self.path, error) from error
        return self.audit_state()


def read_log(path: Path) -> AuditLog:
    """What stands in a log of audits; nothing where there is none. Raises `InputError` V020."""
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
    """Raises `InputError` V023 where audits have refuted what a certificate of the agent promised that was made on many of these rows; V020
    where the log cannot be relied on. Rows promise nothing at another alpha or by another seed either."""
    file = certificates.writable_path(settings, registry, agent, CLAIMS if claims else FILE_NAME)
    path, standing = (
        file.with_name(audits.FILE_NAME),
        _current_certificate(certificates.find_certificate(settings, registry, agent, file.name), agent, claims=claims),
    )
    name = why = ""
    if standing is not None and rows.overlaps(standing.data.digests, standing.data.fingerprints):
        name, why = standing.data.name, standing.void_reason or AuditLogFile(path, standing).audit_state().violation
    if not why and (line := read_log(path).find_voided(rows)) is not None:
        name, why = line.data, line.reason
    if why:
        said = f"audits have voided the certificate of {agent!r} that was made on many of these rows, {name}: {why}"
        option = " --claims" if claims else ""
        raise InputError(
            "V023",
            said,
            hint=f"other rows, which are like those of today: orchestra certify {agent}{option} --data FILE",
        )


def _current_certificate(file: Path | None, agent: str, *, claims: bool) -> AuditedCertificate | None:
    """The certificate that lies there; None for none, and for what is none."""
    try:
        return None if file is None else (read_claims_certificate if claims else read_certificate)(file, agent)
    except InputError:
        return None


def replace_file(file: Path, data: bytes) -> None:
    """Puts a file in its place, whole or not at all, whoever else does so. Raises `OrchestraError` C023 where it cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, data)
    except OSError as error:
        raise OrchestraError(
            "C023", f"{file} cannot be written: {error.strerror or error}", hint="name another with --out"
        ) from error


def _unusable_error(path: Path, error: OSError) -> InputError:
    why = error.strerror or str(error)
    return InputError(
        "V020", f"the log of audits cannot be used: {path}: {why}", hint="it must be a file that can be written"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
