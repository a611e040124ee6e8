"""Sealed files: what a promise says, with a digest of everything in it, which notices an edit by hand.

It is no signature: whoever changes the file and the digest has made another promise.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import msgspec

from orchestra.errors import InputError, Place
from orchestra.values.json import canonical, digest

MAX_BYTES = 1 << 20
CERTIFICATE, CLAIMS, COMBINATION = "certificate.json", "claims.json", "combination.json"
"""The names of such files: who only asks whether there are some need not load what reads them."""


class Sealed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What such a file says. The fields `void` and `digest` are those of the types that derive from it."""

    file: ClassVar[str]
    """Its name."""
    what: ClassVar[str]
    """What it is, in words."""
    made_by: ClassVar[str]
    """What makes one."""

    agent: str

    @property
    def command(self) -> str:
        """What makes a new one."""
        raise NotImplementedError

    def sealed(self) -> Self:
        """With its own digest."""
        return msgspec.structs.replace(self, digest=self._own())

    def voided(self, why: str) -> Self:
        """The same, void for this reason."""
        return msgspec.structs.replace(self, void=why).sealed()

    def _own(self) -> str:
        return digest(canonical({**msgspec.to_builtins(self), "digest": ""}))

    def written(self) -> bytes:
        """As a file."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"

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
        told: dict[str, Any] = msgspec.structs.asdict(found)
        if told["digest"] != found._own():
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
