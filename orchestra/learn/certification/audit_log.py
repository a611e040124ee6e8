"""The book of audits: the log beside a certificate, on disk. Each step stands there before anybody relies on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestra.agents.registry import Registry
from orchestra.app import certificates
from orchestra.app.certificates import read, read_claims
from orchestra.core.atomic_files import write_file
from orchestra.core.errors import InputError, OrchestraError, Place
from orchestra.core.settings import Settings
from orchestra.learn import append_only
from orchestra.verification.certificates import audits
from orchestra.verification.certificates.audits import Audited, Drawn, Line, Log, Output, Said, Watch, Watched
from orchestra.verification.certificates.claims_file import FILE as CLAIMS
from orchestra.verification.certificates.claims_file import ClaimsCertificate
from orchestra.verification.certificates.file import FILE
from orchestra.verification.certificates.row_fingerprints import Rows


@dataclass(frozen=True, slots=True)
class Book:
    """The log of audits of one certificate, on disk."""

    path: Path
    certificate: Watched

    def log(self) -> Log:
        """What stands in it. Raises `InputError` V020."""
        return read_log(self.path)

    def watch(self) -> Watch:
        """How the watch over the certificate stands. Raises `InputError` V020."""
        return self.log().watch(self.certificate)

    def void(self, file: Path) -> str:
        """Writes into the certificate why audits found it broken; gives the reason, empty where the promise holds. Idempotent.

        One that has taken its place meanwhile stays as it is. Raises `InputError` V020, and V003 to V005 where what lies there now is no
        certificate; `OrchestraError` C023 where it cannot be written.
        """
        why = self.watch().broken
        if why and not self.certificate.void:
            self._append(lambda watch: () if watch.voided else (audits.voided(self.certificate, why, _now()),))
            if not self.replaced(file):
                replaced(file, self.certificate.voided(why).written())
        return why

    def replaced(self, file: Path) -> bool:
        """Whether another certificate lies there by now. Raises `InputError` V003 to V005 where what lies there is none."""
        if not file.exists():
            return False
        watched = self.certificate
        now = (read_claims if isinstance(watched, ClaimsCertificate) else read)(file, watched.agent)
        return now.original.digest != watched.original.digest

    def drew(self, outputs: Sequence[Output], population: int, seed: int, wanted: tuple[str, str]) -> Watch:
        """Writes down what was drawn, on disk when it returns. Outputs that somebody else drew meanwhile are his."""

        def lines(watch: Watch) -> Iterator[Line]:
            known = {output.about for output in watch.drawn.values() if output.about}
            fresh = tuple(output for output in outputs if output.unit not in watch.drawn and output.about not in known)
            if fresh:
                since, until = wanted
                told = {"certificate": self.certificate.original.digest, "at": _now()}
                yield Drawn(**told, seed=seed, population=population, since=since, until=until, outputs=fresh)

        return self._append(lines)

    def said(self, said: Sequence[tuple[Output, Said]], by: str) -> Watch:
        """Writes down verdicts on drawn outputs, and on withheld answers that were drawn between them, on disk when it returns. One that
        somebody else has judged meanwhile stays as it is."""

        def lines(watch: Watch) -> Iterable[Audited]:
            fresh = [(output, verdict) for output, verdict in said if output.unit not in watch.audits]
            return audits.audited(self.certificate, watch, audits.among(watch, fresh), by, _now())

        return self._append(lines)

    def _append(self, made: Callable[[Watch], Iterable[Line]]) -> Watch:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with append_only.locked(self.path) as file:
                log = Log.read(append_only.read(file, audits.MAX_BYTES), Place(str(self.path), 1))
                if data := audits.encoded(log.following(made(log.watch(self.certificate)))):
                    append_only.write(file, data, log.size)
        except OSError as error:
            raise _unusable(self.path, error) from error
        return self.watch()


def read_log(path: Path) -> Log:
    """What stands in a log of audits; nothing where there is none. Raises `InputError` V020."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise _unusable(path, error) from error
    return Log.read(data, Place(str(path), 1))


def refuse(settings: Settings, registry: Registry, agent: str, rows: Rows, *, claims: bool = False) -> None:
    """Raises `InputError` V023 where audits have refuted what a certificate of the agent promised that was made on many of these rows; V020
    where the log cannot be relied on. Rows promise nothing at another alpha or by another seed either."""
    file = certificates.kept(settings, registry, agent, CLAIMS if claims else FILE)
    path, standing = file.with_name(audits.FILE), _standing(certificates.found(settings, registry, agent, file.name), agent, claims=claims)
    name = why = ""
    if standing is not None and rows.share(standing.data.digests, standing.data.marks):
        name, why = standing.data.name, standing.void or Book(path, standing).watch().broken
    if not why and (line := read_log(path).refuted(rows)) is not None:
        name, why = line.data, line.why
    if why:
        said = f"audits have voided the certificate of {agent!r} that was made on many of these rows, {name}: {why}"
        option = " --claims" if claims else ""
        raise InputError("V023", said, hint=f"other rows, which are like those of today: orchestra certify {agent}{option} --data FILE")


def _standing(file: Path | None, agent: str, *, claims: bool) -> Watched | None:
    """The certificate that lies there; None for none, and for what is none."""
    try:
        return None if file is None else (read_claims if claims else read)(file, agent)
    except InputError:
        return None


def replaced(file: Path, data: bytes) -> None:
    """Puts a file in its place, whole or not at all, whoever else does so. Raises `OrchestraError` C023 where it cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, data)
    except OSError as error:
        raise OrchestraError("C023", f"{file} cannot be written: {error.strerror or error}", hint="name another with --out") from error


def _unusable(path: Path, error: OSError) -> InputError:
    why = error.strerror or str(error)
    return InputError("V020", f"the log of audits cannot be used: {path}: {why}", hint="it must be a file that can be written")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
