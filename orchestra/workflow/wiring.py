"""Wiring: what a node passes, against what its callee takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestra.errors import Place
from orchestra.values.assign import assignable
from orchestra.values.schema import Schema, branches, nearest, resolve, show, under
from orchestra.workflow.expressions import compile_template
from orchestra.workflow.findings import Findings
from orchestra.workflow.program import Expression


def wired(
    given: Mapping[str, Any], wanted: Schema, callee: str, types: Mapping[str, Schema], findings: Findings, path: tuple[str | int, ...]
) -> Expression | None:
    """The inputs of a call, compiled and checked against an object schema; None where they have faults (L112 to L114)."""
    before = len(findings.faults)
    fields: Mapping[str, Any] = wanted.get("properties", {})
    for name in given:
        if name not in fields:
            near = nearest(name, fields)
            hint = f"did you mean {near!r}?" if near else f"{callee} takes {_signature(wanted)}"
            findings.fault("L112", f"{callee} has no input {name!r}", findings.at(*path, name, key=True), hint=hint)
    missing = [name for name in wanted.get("required", ()) if name not in given]
    if missing:
        place = findings.at(*path) if findings.at(*path) != findings.at(*path[:-1]) else findings.at(*path[:-1], key=True)
        said = ", ".join(repr(name) for name in missing)
        hint = f"with: {{{', '.join(f'{name}: ${{...}}' for name in missing)}}}"
        findings.fault("L113", f"{callee} needs the input{'s' if len(missing) > 1 else ''} {said}", place, hint=hint)
    with findings.collecting():
        compiled = compile_template(dict(given), types, lambda part: findings.at(*path, *part))
        for name, schema in compiled.schema.get("properties", {}).items() if compiled.parts is not None else _constants(given):
            if name in fields:
                source = under(compiled.schema, schema) if compiled.parts is not None else schema
                fits(f"{callee}({name}=...)", source, under(wanted, fields[name]), findings, findings.at(*path, name), given.get(name))
        return compiled if len(findings.faults) == before else None
    return None


def _constants(given: Mapping[str, Any]) -> Iterable[tuple[str, Schema]]:
    """The types of inputs that are all constants."""
    return [(name, compile_template(value, {}).schema) for name, value in given.items()]


def fits(what: str, source: Schema, target: Schema, findings: Findings, place: Place | None, written: Any = None) -> None:
    """Notes L114 where a type cannot be passed on as another, with what would fit."""
    reason = assignable(source, target)
    if reason is None:
        return
    detail = reason.removeprefix("value: ")
    plain = f"expected {show(target)}, got {show(source)}"
    message = f"{what} takes {show(target)}, got {show(source)}"
    findings.fault("L114", message if detail == plain else f"{message}: {detail}", place, hint=_suggestion(source, target, written))


def _suggestion(source: Schema, target: Schema, written: Any) -> str:
    """A field of the value, its elements, or a default for its null, that would fit."""
    text = written[2:-1] if isinstance(written, str) and written.startswith("${") and written.endswith("}") else "it"
    kind = resolve(source)
    if kind.get("type") == "object":
        found = [name for name, part in kind.get("properties", {}).items() if assignable(under(kind, part), target) is None]
        if found:
            return f"did you mean ${{{text}.{found[0]}}}?"
    if kind.get("type") == "array" and isinstance(kind.get("items"), dict) and assignable(under(kind, kind["items"]), target) is None:
        return f"each: ${{{text}}} with `as:` runs once for every element, or take one: ${{{text}[0]}}"
    if (
        text != "it"
        and target.get("type") == "string"
        and {part.get("type") for part in branches(source)} <= {"integer", "number", "boolean"}
    ):
        return f"${{string({text})}}"
    if any(part.get("type") == "null" for part in branches(source)):
        return f"say what stands there for null: ${{{text} != null ? {text} : ...}}"
    return ""


def _signature(schema: Schema) -> str:
    required = schema.get("required", ())
    fields = schema.get("properties", {}).items()
    return (
        ", ".join(f"{name}: {show(under(schema, part))}{'' if name in required else ' (optional)'}" for name, part in fields) or "no inputs"
    )
