"""Wiring: templates compiled where their faults can be noted, and what a node passes, against what its callee takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from orchestra.core.errors import InputError
from orchestra.core.suggestions import nearest
from orchestra.schema.assignability import assignable
from orchestra.schema.json_schema import ANY, MAPPED, Schema, branches, resolve, show, under, union
from orchestra.workflows.compile.diagnostics import Findings
from orchestra.workflows.compile.ordering import Uses
from orchestra.workflows.expressions.evaluation import Path as PathExpression
from orchestra.workflows.expressions.evaluation import Record
from orchestra.workflows.expressions.parser import reference
from orchestra.workflows.expressions.templates import compile_template, constant, followed
from orchestra.workflows.program import Expression

Types = Mapping[str, Schema]
Path = tuple[str | int, ...]
SHOWN = 12
"""Names that a hint lists at most."""

_SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
_BARE = re.compile(r"[a-z]\w*(?:\.\w+|\[\w+\])*", re.ASCII)


def compiled(given: Any, types: Types, findings: Findings, path: Path) -> Expression | None:
    """A template made ready; None where it has faults, which are noted.

    Places are looked up in a second try only, for most templates have no fault.
    """
    try:
        return compile_template(given, types)
    except InputError:
        with findings.collecting():
            compile_template(given, types, lambda part: findings.at(*path, *part))
        return None


def listed(names: Iterable[str]) -> str:
    """Some names, for a hint."""
    known = list(names)
    return ", ".join(known[:SHOWN]) + (f" and {len(known) - SHOWN} more" if len(known) > SHOWN else "") or "none"


def meant(word: str, names: Iterable[str], else_: str) -> str:
    """A hint for a name that is not there: the nearest that is, else something else."""
    near = nearest(word, names)
    return f"did you mean {near!r}?" if near else else_


class Takes:
    """What a callee takes: an object schema, with each field as a type of its own."""

    __slots__ = ("fields", "required", "schema")

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.fields: Mapping[str, Schema] = {name: under(schema, part) for name, part in schema.get("properties", {}).items()}
        self.required: tuple[str, ...] = tuple(schema.get("required", ()))


def wired(given: Mapping[str, Any], wanted: Takes, callee: str, types: Types, findings: Findings, path: Path) -> Expression | None:
    """The inputs of a call, compiled and checked against what it takes; None where they have faults (L112 to L114)."""
    before = len(findings.faults)
    fields = wanted.fields
    for name in given:
        if name not in fields:
            hint = meant(name, fields, f"{callee} takes {_signature(wanted.schema)}")
            findings.fault("L112", f"{callee} has no input {name!r}", findings.at(*path, name, key=True), hint=hint)
    missing = [name for name in wanted.required if name not in given]
    if missing:
        place = findings.at(*path) if given else findings.at(*path[:-1], key=True)
        said = ", ".join(repr(name) for name in missing)
        hint = f"with: {{{', '.join(f'{name}: ${{...}}' for name in missing)}}}"
        findings.fault("L113", f"{callee} needs the input{'s' if len(missing) > 1 else ''} {said}", place, hint=hint)
    made = compiled(dict(given), types, findings, path)
    if made is None:
        return None
    for name, schema in _parts(made, given):
        if name in fields:
            fits(f"{callee}({name}=...)", schema, fields[name], findings, (*path, name), given[name])
    return made if len(findings.faults) == before else None


def known_inputs(reads: Uses, wanted: Takes, types: Types, findings: Findings) -> Expression | None:
    """What `wired` gives for plain paths to types that are known to fit, as most inputs are; None for others."""
    if (paths := reads.paths) is None:
        return None
    for name in wanted.required:
        if name not in paths:
            return None
    if not paths:
        return _NOTHING
    fields, fitting, ends = wanted.fields, findings.fitting, findings.ends
    parts: dict[str, Expression] = {}
    for name, path in paths.items():
        if (want := fields.get(name)) is None or (start := types.get(path.root)) is None:
            return None
        if path.steps:
            way = (id(start), path.steps)
            if (known := ends.get(way)) is None:
                known = ends[way] = (start, followed(start, path.steps))
            if (end := known[1]) is None:
                return None
            part = PathExpression(path.root, path.steps, end.schema, path.source, path.reads, end.careful, end.gathers, end.defaults)
        elif MAPPED in start:
            return None
        else:
            part = PathExpression(path.root, (), start, path.source, path.reads)
        if part.schema is not want and (id(part.schema), id(want)) not in fitting and not _fit(part.schema, want, findings):
            return None
        parts[name] = part
    return Record(parts, reads.hard if reads.bare else frozenset([path.root for path in paths.values()]))


_NOTHING = compile_template({}, {})


def _parts(made: Expression, given: Mapping[str, Any]) -> list[tuple[str, Schema]]:
    """The inputs with the types of what is passed."""
    if made.parts is not None:
        return [(name, part.schema) for name, part in made.parts.items()]
    return [(name, compile_template(value, {}).schema) for name, value in given.items()]


def fits(what: str, source: Schema, target: Schema, findings: Findings, path: Path, written: Any = None) -> None:
    """Notes L114 where a type cannot be passed on as another, with what would fit."""
    if _fit(source, target, findings) or (findings.faults and source == ANY):
        return  # What has a fault of its own gives anything.
    reason = assignable(source, target) or ""
    detail = reason.removeprefix("value: ")
    plain = f"expected {show(target)}, got "
    message = f"{what} takes {show(target)}, got "
    if detail.startswith(plain):
        # Of a constant the detail is the value; of another type it is the part that does not fit, and the whole says more.
        message += detail.removeprefix(plain) if source.keys() & {"const", "enum"} else show(source)
    else:
        message += f"{show(source)}: {detail}"
    findings.fault("L114", message, findings.at(*path), hint=_suggestion(source, target, written))


def _fit(source: Schema, target: Schema, findings: Findings) -> bool:
    """Whether a type can be passed on as another, which is proved once for two of the same."""
    if source is target or (pair := (id(source), id(target))) in findings.fitting:
        return True
    if assignable(source, target) is not None:
        return False
    findings.fitting[pair] = (source, target)
    return True


def unreferenced(text: Any) -> str:
    """What a text without a reference probably means: the same as a reference; empty where it cannot be one."""
    return f"${{{text}}}" if isinstance(text, str) and _BARE.fullmatch(text) else ""


def typed(schema: Schema) -> Schema:
    """The type of a constant list by its elements; any other type as it is."""
    value = schema.get("const")
    if not isinstance(value, list):
        return schema
    return {"type": "array", "items": union([constant(one).schema for one in value]) if value else ANY}


def _suggestion(source: Schema, target: Schema, written: Any) -> str:
    """A field of the value, its elements, or a default for its null, that would fit."""
    text = reference(written) if isinstance(written, str) else None
    if not text:
        return ""
    kind = resolve(source)
    if not kind:
        return "give its producer a type, or read it with a tool that does"
    if kind.get("type") == "object":
        found = [name for name, part in kind.get("properties", {}).items() if assignable(under(kind, part), target) is None]
        if found:
            return f"did you mean ${{{text}.{found[0]}}}?"
    if kind.get("type") == "array" and isinstance(kind.get("items"), dict) and assignable(under(kind, kind["items"]), target) is None:
        return f"each: ${{{text}}} with `as:` runs once for every element, or take one: ${{{text}[0]}}"
    kinds = {part.get("type") for part in branches(source)}
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
    fields = [(name, show(under(schema, part))) for name, part in schema.get("properties", {}).items()]
    return listed(f"{name}: {kind}{'' if name in required else ' (optional)'}" for name, kind in fields) if fields else "no inputs"
