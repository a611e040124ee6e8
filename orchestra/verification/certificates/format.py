"""The format of certificate files: reading, writing, digest, and refusal of other versions.

A file is JSON with the fields `format`, `kind`, `agent` and `digest`; each kind adds its own fields (`file`,
`claims_file`, `combination`). The digest covers everything else in the file and detects an edit. It is no signature: an
edit that also replaces the digest makes another certificate.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Final, Literal, Self

import msgspec

from orchestra.core.errors import InputError, SourceLocation
from orchestra.schema.strict_json import canonical, digest

MAX_BYTES = 1 << 20
CERTIFICATE_FILE, CLAIMS_FILE, COMBINATION_FILE = "certificate.json", "claims.json", "combination.json"
"""Names of the files. They are here so that a check for their existence loads no statistics."""
FORMAT: Final = "orchestra/certificate/v3"
"""Format and version of all kinds."""


class CertificateFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all kinds of certificate files have in common.

    A subclass has a field `kind` with one possible value. It implements the abstract methods: type checkers require it,
    and without `ABCMeta`, which msgspec's structs do not have, the bodies raise.
    """

    file_name: ClassVar[str]
    """Name of the file, beside the card."""
    title: ClassVar[str]
    """Name of the kind in messages."""
    create_command: ClassVar[str]
    """Command line that makes such a file."""

    format: Literal["orchestra/certificate/v3"] = "orchestra/certificate/v3"
    agent: str
    digest: str = ""
    """Digest of everything else in the file."""

    @property
    @abstractmethod
    def renew_command(self) -> str:
        """Command line that makes a new file in place of this one."""
        raise NotImplementedError

    def with_digest(self) -> Self:
        """Returns a copy with the correct digest."""
        return msgspec.structs.replace(self, digest=self._compute_digest())

    def _compute_digest(self) -> str:
        return digest(canonical({**msgspec.to_builtins(self), "digest": ""}))

    def to_bytes(self) -> bytes:
        """Encodes the file: `format` and `kind` first, `void_reason` and `digest` last.

        Journals store the digest of these bytes, so the order must not change.
        """
        fields = msgspec.to_builtins(self)
        first = {name: fields.pop(name) for name in ("format", "kind")}
        last = {name: fields.pop(name) for name in ("void_reason", "digest") if name in fields}
        return msgspec.json.format(msgspec.json.encode(first | fields | last)) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, location: SourceLocation | None = None) -> Self:
        """Decodes untrusted bytes.

        Raises:
            InputError: V003 for another format, version or kind, and for figures that do not support the guarantee;
                V004 for a wrong digest.
        """
        if len(data) > MAX_BYTES:
            raise cls.invalid_file(f"it has more than {MAX_BYTES >> 20} MiB", location)
        try:
            cls._check_header(msgspec.json.decode(data, type=_Header), location)
            certificate_file = msgspec.json.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise cls.invalid_file(str(error), location) from error
        if certificate_file.digest != certificate_file._compute_digest():
            reason = f"{cls.file_name} of {certificate_file.agent} was changed after it was made"
            raise InputError("V004", reason, location=location, hint=certificate_file.renew_command)
        if reason := certificate_file.find_inconsistency():
            raise cls.invalid_file(reason, location)
        return certificate_file

    @classmethod
    def _check_header(cls, header: _Header, location: SourceLocation | None) -> None:
        """Refuses other versions and kinds, with a clearer message than that of the decoder."""
        kind = next(field.default for field in msgspec.structs.fields(cls) if field.name == "kind")
        if header.format != FORMAT:
            raise cls.invalid_file(f"its format is {header.format!r}, and this version reads {FORMAT!r}", location)
        if header.kind != kind:
            raise cls.invalid_file(f"its kind is {header.kind!r}, not {kind!r}", location)

    @abstractmethod
    def find_inconsistency(self) -> str:
        """Returns why the figures do not support the guarantee; empty if they do."""
        raise NotImplementedError

    @classmethod
    def invalid_file(cls, reason: str, location: SourceLocation | None) -> InputError:
        """Returns the error V003."""
        return InputError("V003", f"no {cls.title}: {reason}", location=location, hint=cls.create_command)


class _Header(msgspec.Struct, frozen=True):
    """The fields that are read before the rest."""

    format: str = ""
    kind: str = ""


class VoidableCertificate(CertificateFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A certificate that an audit may void."""

    void_reason: str | msgspec.UnsetType = msgspec.UNSET
    """Why it is void. Not present while it is valid."""

    def mark_void(self, reason: str) -> Self:
        """Returns a copy that is void for this reason."""
        return msgspec.structs.replace(self, void_reason=reason).with_digest()

    @property
    def original(self) -> Self:
        """The certificate as it was made, before it was voided."""
        return (
            self
            if self.void_reason is msgspec.UNSET
            else msgspec.structs.replace(self, void_reason=msgspec.UNSET).with_digest()
        )
