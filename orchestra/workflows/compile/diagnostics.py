"""Findings: what a compiler has to say of a file, all of it at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from orchestra.core.errors import InputError, InputErrors, Place
from orchestra.schema.json_schema import Schema
from orchestra.workflows.expressions.templates import End
from orchestra.workflows.yaml.reader import MAX_FAULTS, Places


@dataclass(frozen=True)
class Part(Place):
    """A part of a workflow that no file is at hand for: its name and the keys that lead to it."""

    workflow: str = ""
    path: tuple[str | int, ...] = ()
    called: Part | None = None
    """Of a call whose workflow has a fault: the part of that one."""

    def __str__(self) -> str:
        return self.file


class Enough(Exception):
    """There are as many faults as a reader can use."""


class Findings:
    """Faults and warnings of a workflow, collected; `places` says where things stand, where a file is at hand."""

    def __init__(self, name: str, places: Places | None = None) -> None:
        self.name, self.places = name, places
        self.faults: dict[tuple[str, str, str], InputError] = {}
        """In the order in which they were found, each once."""
        self.warnings: dict[str, None] = {}
        self.fitting: dict[tuple[int, int], tuple[Schema, Schema]] = {}
        """By their `id`s: pairs of types of which the first can be passed on as the second. Contracts are shared, so most come often."""
        self.trials = 0
        self.ends: dict[tuple[int, tuple[str | int, ...]], tuple[Schema, End | None]] = {}
        """By the `id` of a type and the steps from there: that type, and what is at their end."""

    def at(self, *path: str | int, key: bool = False) -> Place:
        """The place of a part of the workflow."""
        if self.places is not None:
            return self.places.at(*path, key=key)
        return Part(f"{self.name}: {'.'.join(str(step) for step in path)}" if path else self.name, 0, workflow=self.name, path=path)

    def fault(self, code: str, message: str, place: Place | None, *, hint: str = "", why: str = "") -> None:
        """Notes a fault, once. Raises `Enough` with the last that is shown."""
        self.faults.setdefault((code, message, str(place)), InputError(code, message, place=place, hint=hint, why=why))
        if len(self.faults) >= MAX_FAULTS and not self.trials:
            raise Enough

    def warn(self, message: str, place: Place) -> None:
        """Notes what is allowed and probably not meant."""
        self.warnings.setdefault(f"{place}: {message}")

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Notes the errors raised inside, and goes on after them."""
        try:
            yield
        except InputError as error:
            self.note(error)

    def note(self, error: InputError) -> None:
        """Notes what was raised, one fault or several."""
        for one in error.errors if isinstance(error, InputErrors) else (error,):
            self.fault(one.code, one.message, one.place, hint=one.hint, why=one.why)

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Forgets at the end what was found inside; meanwhile there are never enough faults."""
        faults, warnings = dict(self.faults), dict(self.warnings)
        self.trials += 1
        yield
        self.trials -= 1
        self.faults, self.warnings = faults, warnings

    def only(self, code: str, message: str, place: Place, *, hint: str) -> NoReturn:
        """Notes the one fault beside which no other matters, and ends. Raises `Enough`."""
        self.faults = {(code, message, str(place)): InputError(code, message, place=place, hint=hint)}
        raise Enough

    def settle(self) -> None:
        """Raises what was found, in the order of the file."""
        if not self.faults:
            return
        ordered = sorted(self.faults.values(), key=lambda fault: (fault.place.line, fault.place.column) if fault.place else (0, 0))
        raise ordered[0] if len(ordered) == 1 else InputErrors(ordered)
