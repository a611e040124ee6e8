"""Sealed files: what a promise says, with a digest of everything in it, which notices an edit by hand.

It is no signature: whoever changes the file and the digest has made another promise.
"""

from __future__ import annotations

from typing import ClassVar, Self

import msgspec

from orchestra.core.errors import InputError, Place
from orchestra.schema.strict_json import canonical, digest

MAX_BYTES = 1 << 20
CERTIFICATE, CLAIMS, COMBINATION = "certificate.json", "claims.json", "combination.json"
"""The names of such files: who only asks whether there are some need not load what reads them."""


class Sealed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What such a file says."""

    file: ClassVar[str]
    """Its name."""
    what: ClassVar[str]
    """What it is, in words."""
    made_by: ClassVar[str]
    """What makes one."""

    agent: str
    digest: str = ""
    """Of everything else in the file."""

    @property
    def command(self) -> str:
        """What makes a new one."""
        raise NotImplementedError

    def sealed(self) -> Self:
        """With its own digest."""
        return msgspec.structs.replace(self, digest=self._own())

    def _own(self) -> str:
        return digest(canonical({**msgspec.to_builtins(self), "digest": ""}))

    def written(self) -> bytes:
        """As a file. Journals keep the digest of these bytes, so that their order is one for all time: what seals it comes last."""
        said = msgspec.to_builtins(self)
        last = {name: said.pop(name) for name in ("void", "digest") if name in said}
        return msgspec.json.format(msgspec.json.encode(said | last)) + b"\n"

    @classmethod
    def read(cls, data: bytes, place: Place | None = None) -> Self:
        """From a file's bytes, which are not trusted.

        Raises `InputError` V003 for what is no such file or does not carry its own promise, V004 for one that was changed.
        """
        if len(data) > MAX_BYTES:
            raise cls.none(f"it has more than {MAX_BYTES >> 20} MiB", place)
        try:
            found = msgspec.json.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise cls.none(str(error), place) from error
        if found.digest != found._own():
            raise InputError("V004", f"{cls.file} of {found.agent} was changed since it was made", place=place, hint=found.command)
        if why := found.unsound():
            raise cls.none(why, place)
        return found

    def unsound(self) -> str:
        """Why its own figures do not carry what it promises; empty where they do."""
        raise NotImplementedError

    @classmethod
    def none(cls, why: str, place: Place | None) -> InputError:
        """The error of what is no such file."""
        return InputError("V003", f"no {cls.what}: {why}", place=place, hint=cls.made_by)


class Promise(Sealed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A certificate: what audits may find broken."""

    void: str | msgspec.UnsetType = msgspec.UNSET
    """Why they have; not there as long as they have not."""

    def voided(self, why: str) -> Self:
        """The same, void for this reason."""
        return msgspec.structs.replace(self, void=why).sealed()

    @property
    def original(self) -> Self:
        """As it was made: before it was voided."""
        return self if self.void is msgspec.UNSET else msgspec.structs.replace(self, void=msgspec.UNSET).sealed()
