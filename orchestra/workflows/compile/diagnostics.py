"""Diagnostics: errors and warnings of a workflow, collected with their places and with hints."""

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
"""Names that a hint lists at most."""


_BARE_REFERENCE = re.compile(r"[a-z]\w*(?:\.\w+|\[\w+\])*", re.ASCII)


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
        return WorkflowPart(
            f"{self.name}: {'.'.join(str(step) for step in path)}" if path else self.name,
            0,
            workflow=self.name,
            path=path,
        )

    def error(self, code: str, message: str, place: SourceLocation | None, *, hint: str = "", why: str = "") -> None:
        """Notes a fault, once. Raises `TooManyErrors` with the last that is shown."""
        self.errors.setdefault(
            (code, message, str(place)), InputError(code, message, location=place, hint=hint, why=why)
        )
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
        ordered = sorted(
            self.errors.values(),
            key=lambda fault: (fault.location.line, fault.location.column) if fault.location else (0, 0),
        )
        raise ordered[0] if len(ordered) == 1 else InputErrors(ordered)


def try_compile(given: Any, types: Types, findings: Findings, path: KeyPath) -> Expression | None:
    """A template made ready; None where it has faults, which are noted.

    Places are looked up in a second try only, for most templates have no fault.
    """
    try:
        return compile_template(given, types)
    except InputError:
        with findings.collect_errors():
            compile_template(given, types, lambda part: findings.place_of(*path, *part))
        return None


def check_assignable(
    what: str, source: Schema, target: Schema, findings: Findings, path: KeyPath, written: Any = None
) -> None:
    """Notes L114 where a type cannot be passed on as another, with what would fit."""
    if is_assignable(source, target, findings) or (findings.errors and source == ANY):
        return  # What has a fault of its own gives anything.
    reason = assignability_error(source, target) or ""
    detail = reason.removeprefix("value: ")
    plain = f"expected {format_type(target)}, got "
    message = f"{what} takes {format_type(target)}, got "
    if detail.startswith(plain):
        # Of a constant the detail is the value; of another type it is the part that does not fit, and the whole says more.
        message += detail.removeprefix(plain) if source.keys() & {"const", "enum"} else format_type(source)
    else:
        message += f"{format_type(source)}: {detail}"
    findings.error("L114", message, findings.place_of(*path), hint=_conversion_hint(source, target, written))


def is_assignable(source: Schema, target: Schema, findings: Findings) -> bool:
    """Whether a type can be passed on as another, which is proved once for two of the same."""
    if source is target or (pair := (id(source), id(target))) in findings.assignable_pairs:
        return True
    if assignability_error(source, target) is not None:
        return False
    findings.assignable_pairs[pair] = (source, target)
    return True


def _conversion_hint(source: Schema, target: Schema, written: Any) -> str:
    """A field of the value, its elements, or a default for its null, that would fit."""
    text = sole_reference(written) if isinstance(written, str) else None
    if not text:
        return ""
    kind = resolve(source)
    if not kind:
        return "give its producer a type, or read it with a tool that does"
    if kind.get("type") == "object":
        found = [
            name
            for name, part in kind.get("properties", {}).items()
            if assignability_error(subschema(kind, part), target) is None
        ]
        if found:
            return f"did you mean ${{{text}.{found[0]}}}?"
    if (
        kind.get("type") == "array"
        and isinstance(kind.get("items"), dict)
        and assignability_error(subschema(kind, kind["items"]), target) is None
    ):
        return f"each: ${{{text}}} with `as:` runs once for every element, or take one: ${{{text}[0]}}"
    kinds = {part.get("type") for part in union_members(source)}
    wanted = target.get("type")
    if wanted == "string" and "format" not in target and kinds <= {"integer", "number", "boolean"}:
        return f"write ${{string({text})}}"
    if wanted in ("integer", "number") and kinds <= {"string", "integer", "number"}:
        return f"write ${{{'int' if wanted == 'integer' else 'double'}({text})}}, which fails where it is no number"
    if "null" in kinds:
        return f"say what stands there for null: ${{{text} != null ? {text} : ...}}"
    return ""


def join_names(names: Iterable[str]) -> str:
    """Some names, for a hint."""
    known = list(names)
    return (
        ", ".join(known[:MAX_LISTED_NAMES])
        + (f" and {len(known) - MAX_LISTED_NAMES} more" if len(known) > MAX_LISTED_NAMES else "")
        or "none"
    )


def suggestion(word: str, names: Iterable[str], default: str) -> str:
    """A hint for a name that is not there: the nearest that is, else something else."""
    near = closest_match(word, names)
    return f"did you mean {near!r}?" if near else default


def as_reference(text: Any) -> str:
    """What a text without a reference probably means: the same as a reference; empty where it cannot be one."""
    return f"${{{text}}}" if isinstance(text, str) and _BARE_REFERENCE.fullmatch(text) else ""


def widen_constant_list(schema: Schema) -> Schema:
    """The type of a constant list by its elements; any other type as it is."""
    value = schema.get("const")
    if not isinstance(value, list):
        return schema
    return {"type": "array", "items": union([constant_expression(one).schema for one in value]) if value else ANY}
