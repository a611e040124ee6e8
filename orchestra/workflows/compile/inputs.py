"""Wiring: templates compiled where their faults can be noted, and what a node passes, against what its callee takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from orchestra.core.errors import InputError
from orchestra.core.suggestions import closest_match
from orchestra.schema.assignability import assignability_error
from orchestra.schema.json_schema import ANY, MAP_MARKER, Schema, format_type, resolve, subschema, union, union_members
from orchestra.workflows.compile.diagnostics import Findings
from orchestra.workflows.compile.ordering import NodeReferences
from orchestra.workflows.expressions.evaluation import MappingExpression
from orchestra.workflows.expressions.evaluation import PathExpression as PathExpression
from orchestra.workflows.expressions.parser import sole_reference
from orchestra.workflows.expressions.templates import compile_template, constant_expression, resolve_steps
from orchestra.workflows.program import Expression

Types = Mapping[str, Schema]
KeyPath = tuple[str | int, ...]
MAX_LISTED_NAMES = 12
"""Names that a hint lists at most."""

_SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
_BARE_REFERENCE = re.compile(r"[a-z]\w*(?:\.\w+|\[\w+\])*", re.ASCII)


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


def join_names(names: Iterable[str]) -> str:
    """Some names, for a hint."""
    known = list(names)
    return (
        ", ".join(known[:MAX_LISTED_NAMES]) + (f" and {len(known) - MAX_LISTED_NAMES} more" if len(known) > MAX_LISTED_NAMES else "")
        or "none"
    )


def suggestion(word: str, names: Iterable[str], default: str) -> str:
    """A hint for a name that is not there: the nearest that is, else something else."""
    near = closest_match(word, names)
    return f"did you mean {near!r}?" if near else default


class CalleeInputs:
    """What a callee takes: an object schema, with each field as a type of its own."""

    __slots__ = ("fields", "required", "schema")

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.fields: Mapping[str, Schema] = {name: subschema(schema, part) for name, part in schema.get("properties", {}).items()}
        self.required: tuple[str, ...] = tuple(schema.get("required", ()))


def bind_inputs(
    given: Mapping[str, Any], wanted: CalleeInputs, callee: str, types: Types, findings: Findings, path: KeyPath
) -> Expression | None:
    """The inputs of a call, compiled and checked against what it takes; None where they have faults (L112 to L114)."""
    before = len(findings.errors)
    fields = wanted.fields
    for name in given:
        if name not in fields:
            hint = suggestion(name, fields, f"{callee} takes {_signature(wanted.schema)}")
            findings.error("L112", f"{callee} has no input {name!r}", findings.place_of(*path, name, key=True), hint=hint)
    missing = [name for name in wanted.required if name not in given]
    if missing:
        place = findings.place_of(*path) if given else findings.place_of(*path[:-1], key=True)
        said = ", ".join(repr(name) for name in missing)
        hint = f"with: {{{', '.join(f'{name}: ${{...}}' for name in missing)}}}"
        findings.error("L113", f"{callee} needs the input{'s' if len(missing) > 1 else ''} {said}", place, hint=hint)
    made = try_compile(dict(given), types, findings, path)
    if made is None:
        return None
    for name, schema in _input_schemas(made, given):
        if name in fields:
            check_assignable(f"{callee}({name}=...)", schema, fields[name], findings, (*path, name), given[name])
    return made if len(findings.errors) == before else None


def bind_plain_inputs(reads: NodeReferences, wanted: CalleeInputs, types: Types, findings: Findings) -> Expression | None:
    """The result of `bind_inputs` for plain paths to types that are known to fit, as most inputs are; None for others."""
    if (paths := reads.paths) is None:
        return None
    for name in wanted.required:
        if name not in paths:
            return None
    if not paths:
        return _NO_INPUTS
    fields, fitting, ends = wanted.fields, findings.assignable_pairs, findings.path_ends
    parts: dict[str, Expression] = {}
    for name, path in paths.items():
        if (want := fields.get(name)) is None or (start := types.get(path.root)) is None:
            return None
        if path.steps:
            way = (id(start), path.steps)
            if (known := ends.get(way)) is None:
                known = ends[way] = (start, resolve_steps(start, path.steps))
            if (end := known[1]) is None:
                return None
            part = PathExpression(
                path.root, path.steps, end.schema, path.source, path.references, end.checks_each_step, end.collects_values, end.defaults
            )
        elif MAP_MARKER in start:
            return None
        else:
            part = PathExpression(path.root, (), start, path.source, path.references)
        if part.schema is not want and (id(part.schema), id(want)) not in fitting and not _is_assignable(part.schema, want, findings):
            return None
        parts[name] = part
    return MappingExpression(parts, reads.hard if reads.is_plain_call else frozenset([path.root for path in paths.values()]))


_NO_INPUTS = compile_template({}, {})


def _input_schemas(made: Expression, given: Mapping[str, Any]) -> list[tuple[str, Schema]]:
    """The inputs with the types of what is passed."""
    if made.parts is not None:
        return [(name, part.schema) for name, part in made.parts.items()]
    return [(name, compile_template(value, {}).schema) for name, value in given.items()]


def check_assignable(what: str, source: Schema, target: Schema, findings: Findings, path: KeyPath, written: Any = None) -> None:
    """Notes L114 where a type cannot be passed on as another, with what would fit."""
    if _is_assignable(source, target, findings) or (findings.errors and source == ANY):
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


def _is_assignable(source: Schema, target: Schema, findings: Findings) -> bool:
    """Whether a type can be passed on as another, which is proved once for two of the same."""
    if source is target or (pair := (id(source), id(target))) in findings.assignable_pairs:
        return True
    if assignability_error(source, target) is not None:
        return False
    findings.assignable_pairs[pair] = (source, target)
    return True


def as_reference(text: Any) -> str:
    """What a text without a reference probably means: the same as a reference; empty where it cannot be one."""
    return f"${{{text}}}" if isinstance(text, str) and _BARE_REFERENCE.fullmatch(text) else ""


def widen_constant_list(schema: Schema) -> Schema:
    """The type of a constant list by its elements; any other type as it is."""
    value = schema.get("const")
    if not isinstance(value, list):
        return schema
    return {"type": "array", "items": union([constant_expression(one).schema for one in value]) if value else ANY}


def _conversion_hint(source: Schema, target: Schema, written: Any) -> str:
    """A field of the value, its elements, or a default for its null, that would fit."""
    text = sole_reference(written) if isinstance(written, str) else None
    if not text:
        return ""
    kind = resolve(source)
    if not kind:
        return "give its producer a type, or read it with a tool that does"
    if kind.get("type") == "object":
        found = [name for name, part in kind.get("properties", {}).items() if assignability_error(subschema(kind, part), target) is None]
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


def _signature(schema: Schema) -> str:
    required = schema.get("required", ())
    fields = [(name, format_type(subschema(schema, part))) for name, part in schema.get("properties", {}).items()]
    return join_names(f"{name}: {kind}{'' if name in required else ' (optional)'}" for name, kind in fields) if fields else "no inputs"
