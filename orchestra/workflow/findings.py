"""Findings: what a compiler has to say of a file, all of it at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orchestra.errors import InputError, InputErrors, Place
from orchestra.workflow.reader import Places


class Findings:
    """Faults and warnings, collected; `places` says where things stand, where a file is at hand."""

    def __init__(self, places: Places | None = None) -> None:
        self.places = places
        self.faults: list[InputError] = []
        self.warnings: list[str] = []

    def at(self, *path: str | int, key: bool = False) -> Place | None:
        """The place of a part of the file."""
        return self.places.at(*path, key=key) if self.places is not None else None

    def fault(self, code: str, message: str, place: Place | None, *, hint: str = "", why: str = "") -> None:
        """Notes a fault, once."""
        error = InputError(code, message, place=place, hint=hint, why=why)
        if not any(str(known) == str(error) for known in self.faults):
            self.faults.append(error)

    def warn(self, message: str, place: Place | None = None) -> None:
        """Notes what is allowed and probably not meant."""
        self.warnings.append(f"{place}: {message}" if place else message)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Notes the errors raised inside, and goes on after them."""
        try:
            yield
        except InputErrors as several:
            for error in several.errors:
                self.fault(error.code, error.message, error.place, hint=error.hint, why=error.why)
        except InputError as error:
            self.fault(error.code, error.message, error.place, hint=error.hint, why=error.why)

    def settle(self) -> None:
        """Raises what was found, in the order of the file."""
        if not self.faults:
            return
        ordered = sorted(self.faults, key=lambda fault: (fault.place.line, fault.place.column) if fault.place else (0, 0))
        raise ordered[0] if len(ordered) == 1 else InputErrors(ordered)
