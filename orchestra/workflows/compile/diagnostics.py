"""Diagnostics: the errors and warnings of a workflow, with their locations and hints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from orchestra.core.errors import InputError, InputErrors, SourceLocation
from orchestra.core.suggestions import closest_match
from orchestra.schema.assignability import assignability_error
from orchestra.schema.json_schema import ANY, Schema, format_type, resolve, subschema, union, union_members
from orchestra.workflows.expressions.evaluation import PathExpression as PathExpression
from orchestra.workflows.expressions.parser import sole_reference
from orchestra.workflows.expressions.templates import PathEnd, compile_template, constant_expression
from orchestra.workflows.program import Expression
from orchestra.workflows.yaml.reader import MAX_ERRORS, SourcePlaces

Types = Mapping[str, Schema]


KeyPath = tuple[str | int, ...]


MAX_LISTED_NAMES = 12
"""The maximum number of names in a hint."""


_BARE_REFERENCE = re.compile(r"[a-z]\w*(?:\.\w+|\[\w+\])*", re.ASCII)


@dataclass(frozen=True)
class WorkflowPart(SourceLocation):
    """A part of a workflow without a file: the workflow's name and the path of keys."""

    workflow: str = ""
    path: tuple[str | int, ...] = ()
    called: WorkflowPart | None = None
    """For a call of a workflow with an error: the location inside that workflow."""

    def __str__(self) -> str:
        return self.file


class TooManyErrors(Exception):
    """The maximum number of reported errors is reached."""


class Findings:
    """The errors and warnings of a workflow. `places` gives the locations if there is a file."""

    def __init__(self, name: str, places: SourcePlaces | None = None) -> None:
        self.name, self.places = name, places
        self.errors: dict[tuple[str, str, str], InputError] = {}
        """In the order of detection, each once."""
        self.warnings: dict[str, None] = {}
        self.assignable_pairs: dict[tuple[int, int], tuple[Schema, Schema]] = {}
        """Pairs of types that are known to be assignable, keyed by their `id`s. Contracts are shared, so most pairs
        repeat.
        """
        self.trial_depth = 0
        self.path_ends: dict[tuple[int, tuple[str | int, ...]], tuple[Schema, PathEnd | None]] = {}
        """The type at the end of a path, keyed by the `id` of the start type and the steps."""

    def location_of(self, *path: str | int, key: bool = False) -> SourceLocation:
        """Returns the location of a part of the workflow."""
        if self.places is not None:
            return self.places.location_of(*path, key=key)
        return WorkflowPart(
            f"{self.name}: {'.'.join(str(step) for step in path)}" if path else self.name,
            0,
            workflow=self.name,
            path=path,
        )

    def error(self, code: str, message: str, location: SourceLocation | None, *, hint: str = "", why: str = "") -> None:
        """Records an error once. Raises `TooManyErrors` at the maximum."""
        self.errors.setdefault(
            (code, message, str(location)), InputError(code, message, location=location, hint=hint, why=why)
        )
        if len(self.errors) >= MAX_ERRORS and not self.trial_depth:
            raise TooManyErrors

    def warn(self, message: str, location: SourceLocation) -> None:
        """Records a warning."""
        self.warnings.setdefault(f"{location}: {message}")

    @contextmanager
    def collect_errors(self) -> Iterator[None]:
        """Records the errors raised inside the block and continues after it."""
        try:
            yield
        except InputError as error:
            self.add_error(error)

    def add_error(self, error: InputError) -> None:
        """Records a raised error, or each one of several."""
        for single_error in error.errors if isinstance(error, InputErrors) else (error,):
            self.error(
                single_error.code,
                single_error.message,
                single_error.location,
                hint=single_error.hint,
                why=single_error.why,
            )

    @contextmanager
    def discard_findings(self) -> Iterator[None]:
        """Discards the errors and warnings recorded inside the block. The maximum does not apply there."""
        faults, warnings = dict(self.errors), dict(self.warnings)
        self.trial_depth += 1
        yield
        self.trial_depth -= 1
        self.errors, self.warnings = faults, warnings

    def abort(self, code: str, message: str, location: SourceLocation, *, hint: str) -> NoReturn:
        """Replaces all errors by one and stops. Raises `TooManyErrors`."""
        self.errors = {(code, message, str(location)): InputError(code, message, location=location, hint=hint)}
        raise TooManyErrors

    def raise_errors(self) -> None:
        """Raises the recorded errors in the order of the file."""
        if not self.errors:
            return
        sorted_errors = sorted(
            self.errors.values(),
            key=lambda fault: (fault.location.line, fault.location.column) if fault.location else (0, 0),
        )
        raise sorted_errors[0] if len(sorted_errors) == 1 else InputErrors(sorted_errors)


def try_compile(given: Any, types: Types, findings: Findings, path: KeyPath) -> Expression | None:
    """Compiles a template. Returns None if it has errors, which are recorded.

    Locations are looked up only in a second pass, since most templates have no errors.
    """
    try:
        return compile_template(given, types)
    except InputError:
        with findings.collect_errors():
            compile_template(given, types, lambda part: findings.location_of(*path, *part))
        return None


def check_assignable(
    what: str, source: Schema, target: Schema, findings: Findings, path: KeyPath, written: Any = None
) -> None:
    """Records L114 if a type is not assignable to another, with a hint."""
    if is_assignable(source, target, findings) or (findings.errors and source == ANY):
        return  # An invalid part has the type ANY, and its error is recorded already.
    reason = assignability_error(source, target) or ""
    detail = reason.removeprefix("value: ")
    plain = f"expected {format_type(target)}, got "
    message = f"{what} takes {format_type(target)}, got "
    if detail.startswith(plain):
        # For a constant the detail is its value. For another type the detail is one part, so the message shows the
        # complete type.
        message += detail.removeprefix(plain) if source.keys() & {"const", "enum"} else format_type(source)
    else:
        message += f"{format_type(source)}: {detail}"
    findings.error("L114", message, findings.location_of(*path), hint=_conversion_hint(source, target, written))


def is_assignable(source: Schema, target: Schema, findings: Findings) -> bool:
    """Whether a type is assignable to another. Results are cached by identity."""
    if source is target or (pair := (id(source), id(target))) in findings.assignable_pairs:
        return True
    if assignability_error(source, target) is not None:
        return False
    findings.assignable_pairs[pair] = (source, target)
    return True


def _conversion_hint(source: Schema, target: Schema, value: Any) -> str:
    """Returns a hint with a field, an element, a conversion or a default for null that would be assignable."""
    text = sole_reference(value) if isinstance(value, str) else None
    if not text:
        return ""
    kind = resolve(source)
    if not kind:
        return "give its producer a type, or read it with a tool that does"
    if kind.get("type") == "object":
        fields = [
            name
            for name, part in kind.get("properties", {}).items()
            if assignability_error(subschema(kind, part), target) is None
        ]
        if fields:
            return f"did you mean ${{{text}.{fields[0]}}}?"
    if (
        kind.get("type") == "array"
        and isinstance(kind.get("items"), dict)
        and assignability_error(subschema(kind, kind["items"]), target) is None
    ):
        return f"each: ${{{text}}} with `as:` runs once for every element, or take one: ${{{text}[0]}}"
    kinds = {part.get("type") for part in union_members(source)}
    expected_kind = target.get("type")
    if expected_kind == "string" and "format" not in target and kinds <= {"integer", "number", "boolean"}:
        return f"write ${{string({text})}}"
    if expected_kind in ("integer", "number") and kinds <= {"string", "integer", "number"}:
        return (
            f"write ${{{'int' if expected_kind == 'integer' else 'double'}({text})}}, which fails if it is not a number"
        )
    if "null" in kinds:
        return f"give a default for null: ${{{text} != null ? {text} : ...}}"
    return ""


def join_names(names: Iterable[str]) -> str:
    """Joins names for a hint."""
    name_list = list(names)
    return (
        ", ".join(name_list[:MAX_LISTED_NAMES])
        + (f" and {len(name_list) - MAX_LISTED_NAMES} more" if len(name_list) > MAX_LISTED_NAMES else "")
        or "none"
    )


def suggestion(word: str, names: Iterable[str], default: str) -> str:
    """Returns a hint with the nearest known name, or the default hint."""
    near = closest_match(word, names)
    return f"did you mean {near!r}?" if near else default


def as_reference(text: Any) -> str:
    """Returns the text as a reference if it looks like one without `${}`, else an empty text."""
    return f"${{{text}}}" if isinstance(text, str) and _BARE_REFERENCE.fullmatch(text) else ""


def widen_constant_list(schema: Schema) -> Schema:
    """Returns the list type of a constant list; any other type unchanged."""
    value = schema.get("const")
    if not isinstance(value, list):
        return schema
    return {"type": "array", "items": union([constant_expression(item).schema for item in value]) if value else ANY}
