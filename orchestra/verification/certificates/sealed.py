"""Sealed files: what a promise says, with a digest of everything in it, which notices an edit by hand.

It is no signature: whoever changes the file and the digest has made another promise.
"""

from __future__ import annotations

from typing import ClassVar, Self

import msgspec

from orchestra.core.errors import InputError, SourceLocation
from orchestra.schema.strict_json import canonical, digest

MAX_BYTES = 1 << 20
CERTIFICATE_FILE, CLAIMS_FILE, COMBINATION_FILE = "certificate.json", "claims.json", "combination.json"
"""The names of such files: who only asks whether there are some need not load what reads them."""


class SealedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What such a file says."""

    file_name: ClassVar[str]
    """Its name."""
    title: ClassVar[str]
    """What it is, in words."""
    create_command: ClassVar[str]
    """What makes one."""

    agent: str
    digest: str = ""
    """Of everything else in the file."""

    @property
    def renew_command(self) -> str:
        """What makes a new one."""
        raise NotImplementedError

    def with_digest(self) -> Self:
        """With its own digest."""
        return msgspec.structs.replace(self, digest=self._compute_digest())

    def _compute_digest(self) -> str:
        return digest(canonical({**msgspec.to_builtins(self), "digest": ""}))

    def to_bytes(self) -> bytes:
        """As a file. Journals keep the digest of these bytes, so that their order is one for all time: what seals it comes last."""
        fields = msgspec.to_builtins(self)
        last = {name: fields.pop(name) for name in ("void_reason", "digest") if name in fields}
        return msgspec.json.format(msgspec.json.encode(fields | last)) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, place: SourceLocation | None = None) -> Self:
        """From a file's bytes, which are not trusted.

        Raises `InputError` V003 for what is no such file or does not carry its own promise, V004 for one that was changed.
        """
        if len(data) > MAX_BYTES:
            raise cls.invalid_file(f"it has more than {MAX_BYTES >> 20} MiB", place)
        try:
            found = msgspec.json.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise cls.invalid_file(str(error), place) from error
        if found.digest != found._compute_digest():
            raise InputError(
                "V004",
                f"{cls.file_name} of {found.agent} was changed since it was made",
                location=place,
                hint=found.renew_command,
            )
        if why := found.find_inconsistency():
            raise cls.invalid_file(why, place)
        return found

    def find_inconsistency(self) -> str:
        """Why its own figures do not carry what it promises; empty where they do."""
        raise NotImplementedError

    @classmethod
    def invalid_file(cls, why: str, place: SourceLocation | None) -> InputError:
        """The error of what is no such file."""
        return InputError("V003", f"no {cls.title}: {why}", location=place, hint=cls.create_command)


class BaseCertificate(SealedFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A certificate: what audits may find broken."""

    void_reason: str | msgspec.UnsetType = msgspec.UNSET
    """Why they have; not there as long as they have not."""

    def mark_void(self, why: str) -> Self:
        """The same, void for this reason."""
        return msgspec.structs.replace(self, void_reason=why).with_digest()

    @property
    def original(self) -> Self:
        """As it was made: before it was voided."""
        return (
            self
            if self.void_reason is msgspec.UNSET
            else msgspec.structs.replace(self, void_reason=msgspec.UNSET).with_digest()
        )
