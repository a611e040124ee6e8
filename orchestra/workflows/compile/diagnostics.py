"""Findings: what a compiler has to say of a file, all of it at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from orchestra.core.errors import InputError, InputErrors, SourceLocation
from orchestra.schema.json_schema import Schema
from orchestra.workflows.expressions.templates import PathEnd
from orchestra.workflows.yaml.reader import MAX_ERRORS, SourcePlaces


@dataclass(frozen=True)
class WorkflowPart(SourceLocation):
    """A part of a workflow that no file is at hand for: its name and the keys that lead to it."""

    workflow: str = ""
    path: tuple[str | int, ...] = ()
    called: WorkflowPart | None = None
    """Of a call whose workflow has a fault: the part of that one."""

    def __str__(self) -> str:
        return self.file


class TooManyErrors(Exception):
    """There are as many faults as a reader can use."""


class Findings:
    """Faults and warnings of a workflow, collected; `places` says where things stand, where a file is at hand."""

    def __init__(self, name: str, places: SourcePlaces | None = None) -> None:
        self.name, self.places = name, places
        self.errors: dict[tuple[str, str, str], InputError] = {}
        """In the order in which they were found, each once."""
        self.warnings: dict[str, None] = {}
        self.assignable_pairs: dict[tuple[int, int], tuple[Schema, Schema]] = {}
        """By their `id`s: pairs of types of which the first can be passed on as the second. Contracts are shared, so most come often."""
        self.trial_depth = 0
        self.path_ends: dict[tuple[int, tuple[str | int, ...]], tuple[Schema, PathEnd | None]] = {}
        """By the `id` of a type and the steps from there: that type, and what is at their end."""

    def place_of(self, *path: str | int, key: bool = False) -> SourceLocation:
        """The place of a part of the workflow."""
        if self.places is not None:
            return self.places.place_of(*path, key=key)
        return WorkflowPart(f"{self.name}: {'.'.join(str(step) for step in path)}" if path else self.name, 0, workflow=self.name, path=path)

    def error(self, code: str, message: str, place: SourceLocation | None, *, hint: str = "", why: str = "") -> None:
        """Notes a fault, once. Raises `TooManyErrors` with the last that is shown."""
        self.errors.setdefault((code, message, str(place)), InputError(code, message, location=place, hint=hint, why=why))
        if len(self.errors) >= MAX_ERRORS and not self.trial_depth:
            raise TooManyErrors

    def warn(self, message: str, place: SourceLocation) -> None:
        """Notes what is allowed and probably not meant."""
        self.warnings.setdefault(f"{place}: {message}")

    @contextmanager
    def collect_errors(self) -> Iterator[None]:
        """Notes the errors raised inside, and goes on after them."""
        try:
            yield
        except InputError as error:
            self.add_error(error)

    def add_error(self, error: InputError) -> None:
        """Notes what was raised, one fault or several."""
        for one in error.errors if isinstance(error, InputErrors) else (error,):
            self.error(one.code, one.message, one.location, hint=one.hint, why=one.why)

    @contextmanager
    def discard_findings(self) -> Iterator[None]:
        """Forgets at the end what was found inside; meanwhile there are never enough faults."""
        faults, warnings = dict(self.errors), dict(self.warnings)
        self.trial_depth += 1
        yield
        self.trial_depth -= 1
        self.errors, self.warnings = faults, warnings

    def abort(self, code: str, message: str, place: SourceLocation, *, hint: str) -> NoReturn:
        """Notes the one fault beside which no other matters, and ends. Raises `TooManyErrors`."""
        self.errors = {(code, message, str(place)): InputError(code, message, location=place, hint=hint)}
        raise TooManyErrors

    def raise_errors(self) -> None:
        """Raises what was found, in the order of the file."""
        if not self.errors:
            return
        ordered = sorted(self.errors.values(), key=lambda fault: (fault.location.line, fault.location.column) if fault.location else (0, 0))
        raise ordered[0] if len(ordered) == 1 else InputErrors(ordered)
