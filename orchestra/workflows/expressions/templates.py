"""Expressions: templates compiled against the types of what they may read.

A text that is exactly one `${...}` keeps the type of its value; any other text is a string; `$${` stands for `${`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec

from orchestra.core.errors import InputError, InputErrors, OrchestraError, Place
from orchestra.schema.json_schema import ANY, MAPPED, TYPE_NAMES, Schema, branches, is_mapped, show
from orchestra.workflows.expressions import cel
from orchestra.workflows.expressions.cel_codegen import Writer, hoistable
from orchestra.workflows.expressions.cel_values import converter
from orchestra.workflows.expressions.evaluation import Comprehension, Constant, Feed, Formula, Listing, Path, Record, Text, Whole
from orchestra.workflows.expressions.parser import (
    Binary,
    Call,
    Index,
    ListOf,
    Literal,
    Macro,
    MapOf,
    Name,
    NotCEL,
    Select,
    Tree,
    children,
    parse,
    pieces,
    reference,
)
from orchestra.workflows.expressions.plain_paths import MAX_LENGTH, Plain, plain, whole
from orchestra.workflows.expressions.type_checker import MOMENT, STR, Checker, Fault, kinds, mapped_fault, path_of
from orchestra.workflows.program import Expression

MAX_DEPTH = 64

PlaceOf: TypeAlias = Callable[[tuple[str | int, ...]], Place | None]
"""Where the part of a template at a path stands; `()` is the template itself."""


def compile_template(value: Any, types: Mapping[str, Schema], place_of: PlaceOf | None = None) -> Expression:
    """A template made ready. `types` are those of the names that it may read.

    Raises `InputError` for a fault (L050 to L060), `InputErrors` for several in different parts.
    """
    return _template(value, types, place_of or _nowhere, ())


def _nowhere(path: tuple[str | int, ...]) -> Place | None:
    return None


def _template(value: Any, types: Mapping[str, Schema], place_of: PlaceOf, steps: tuple[str | int, ...]) -> Expression:
    if len(steps) > MAX_DEPTH:
        raise InputError("L011", f"nested deeper than {MAX_DEPTH}", place=place_of(()), hint="build the value in a tool")
    if isinstance(value, str):
        if "${" not in value:
            return constant(value)
        if (found := path(value, types)) is not None:
            return found
        return _text(value, types, place_of(steps))
    if isinstance(value, dict | Mapping):
        inner = _parts(value.items(), types, place_of, steps)
        if all(isinstance(part, Constant) for part in inner.values()):
            return constant({key: part.evaluate({}) for key, part in inner.items()})
        return Record(inner, _references(inner.values()))
    if isinstance(value, list | tuple):
        listed = tuple(_parts(enumerate(value), types, place_of, steps).values())
        if all(isinstance(part, Constant) for part in listed):
            return constant([part.evaluate({}) for part in listed])
        return Listing(listed, _references(listed), Listing.of([part.schema for part in listed]))
    return constant(value)


def _parts(entries: Any, types: Mapping[str, Schema], place_of: PlaceOf, steps: tuple[str | int, ...]) -> dict[Any, Expression]:
    found: dict[Any, Expression] = {}
    errors: list[InputError] = []
    for key, part in entries:
        try:
            found[key] = _template(part, types, place_of, (*steps, key))
        except InputErrors as several:
            errors += several.errors
        except InputError as error:
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 else InputErrors(errors)
    return found


def _references(parts: Iterable[Expression]) -> frozenset[str]:
    found = [names for part in parts if (names := part.references)]
    return _NONE if not found else found[0] if len(found) == 1 else _NONE.union(*found)


_NONE: frozenset[str] = frozenset()


def constant(value: Any) -> Constant:
    """A value as it is: no text in it is a template."""
    kind = TYPE_NAMES.get(type(value))
    return Constant(value, {"const": value} if kind is None else {"const": value, "type": kind})


def _text(text: str, types: Mapping[str, Schema], place: Place | None) -> Expression:
    parts: list[str | Expression] = []
    line = _Line(place)
    for piece in pieces(text):
        if isinstance(piece, str):
            for _ in range(piece.count("${")):
                line.next("$${")
            parts.append(piece)
            continue
        if not piece.closed:
            where = line.next(f"${{{piece.source}")
            hint = "write ${...}; for the characters themselves write $${"
            raise InputError("L050", "the reference is not closed", place=where, hint=hint)
        where = line.next(f"${{{piece.source}}}")
        found = compile_reference(piece.source, types, _between(where, piece.source))
        if reference(text) is not None:
            return found
        _fits_text(found, piece.source, where)
        parts.append(Whole(found) if kinds(found.schema) & {"int", "float"} == {"int"} else found)
    read = [part for part in parts if not isinstance(part, str)]
    return Text(tuple(parts), _references(read), STR) if read else constant("".join(map(str, parts)))


class _Line:
    """The line of a scalar, in which its parts are found from left to right: of two that are spelt the same, each has its own place."""

    __slots__ = ("at", "place")

    def __init__(self, place: Place | None) -> None:
        self.place = place
        self.at = 0 if place is None else place.column - 1

    def next(self, part: str) -> Place | None:
        """The place of the next part; that of the scalar where the part is not in its line, or is spelt otherwise there."""
        if self.place is None or (found := self.place.text.find(part, self.at)) < 0:
            return self.place
        self.at = found + len(part)
        return replace(self.place, column=found + 1, width=len(part))


def _between(place: Place | None, inner: str) -> Place | None:
    """The place of what stands between `${` and `}`, where that is known."""
    if place is None or not inner or not place.text.startswith(f"${{{inner}}}", place.column - 1):
        return place
    return replace(place, column=place.column + 2, width=len(inner))


def _fits_text(reference: Expression, source: str, place: Place | None) -> None:
    found = kinds(reference.schema)
    if "any" in found or found <= {"str", "int", "float", "bool"}:
        return
    if "null" in found and found <= {"str", "int", "float", "bool", "null"}:
        hint = f'say what stands there then: ${{{source} != null ? {source} : ""}}'
        raise InputError("L057", f"{source} may be null ({show(reference.schema)}), and stands in a text", place=place, hint=hint)
    hint = "read one of its fields, or let a tool write it"
    raise InputError("L059", f"{source} is {show(reference.schema)}, and cannot stand in a text", place=place, hint=hint)


def compile_reference(source: str, types: Mapping[str, Schema], place: Place | None = None) -> Expression:
    """The expression of one reference, without `${` and `}`. `place` is where its text stands. Raises `InputError`."""
    try:
        return _reference(source, types)
    except NotCEL as error:
        code = "L056" if error.large else "L050"
        where = _inside(place, source, error.at, error.end)
        raise InputError(
            code, f"not an expression: {error.reason}", place=where, hint=error.hint or "CEL, as in ${input.n > 3 && a.b == 'x'}"
        ) from None
    except Fault as fault:
        where = _inside(place, source, fault.at, fault.end)
        raise InputError(fault.code, fault.message, place=where, hint=fault.hint, why=fault.why) from None


def _inside(place: Place | None, source: str, at: int, end: int) -> Place | None:
    if place is None or not place.text.startswith(source, place.column - 1):
        return place
    return replace(place, column=place.column + at, width=max(1, end - at))


class _Same:
    """A schema as a key of a cache: equal to itself alone. Schemas are not changed once they are made."""

    __slots__ = ("schema",)

    def __init__(self, schema: Schema) -> None:
        self.schema = schema

    def __hash__(self) -> int:
        return id(self.schema)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.schema is other.schema


def path(template: str, types: Mapping[str, Schema]) -> Path | None:
    """A template that is a plain path, made ready; None for another, and for one with a fault, which `compile_template` tells."""
    if len(template) > MAX_LENGTH or (known := whole(template)) is None or (schema := types.get(known.root)) is None:
        return None
    if not known.steps:
        return None if MAPPED in schema else Path(known.root, (), schema, known.source, known.reads)
    return _followed(known, schema)


def _followed(path: Plain, schema: Schema) -> Path | None:
    """A plain path that begins at a value of this type."""
    if not path.steps:
        return None if is_mapped(schema) else Path(path.root, (), schema, path.source, path.reads)
    if (end := followed(schema, path.steps)) is None:
        return None
    return Path(path.root, path.steps, end.schema, path.source, path.reads, end.careful, end.gathers, end.defaults)


class End(msgspec.Struct, frozen=True):
    """Where steps lead, from one type on."""

    schema: Schema
    careful: bool
    gathers: bool
    defaults: Mapping[int, Any] | None


def followed(schema: Schema, steps: tuple[str | int, ...]) -> End | None:
    """What is at the end of steps from a type; None where something is wrong with them."""
    return _walked(_Same(schema), steps)


@lru_cache(maxsize=2048)
def _walked(same: _Same, steps: tuple[str | int, ...]) -> End | None:
    start = Name("a", 0, 0)
    tree: Tree = start
    for step in steps:
        tree = Select(tree, step, 0, 0) if isinstance(step, str) else Index(tree, Literal(step, 0, 0), 0, 0)
    checker = Checker("", {start.name: same.schema})
    try:
        if is_mapped(checker.check(tree)):
            return None
    except Fault:
        return None
    made = _path(tree, checker)
    return End(made.schema, made.careful, made.gathers, made.defaults)


def _reference(source: str, types: Mapping[str, Schema]) -> Expression:
    known = plain(source)
    if known is not None and known.root in types and (found := _followed(known, types[known.root])) is not None:
        return found
    tree = parse(source)
    checker = Checker(source, types)
    schema = checker.check(tree)
    if is_mapped(schema):
        raise mapped_fault(tree, checker.source(tree))
    if kinds(schema) & {"time"}:
        raise Fault("L059", f"{source} is a time, and has no JSON form", tree, hint=f"write string({source})")
    if _MAKES_TIMES.search(source) and _has_time(schema):
        raise Fault("L059", f"{source} has a time in it, which has no JSON form", tree, hint="write string(...) around each time")
    return _expression(tree, checker)


_MAKES_TIMES = re.compile(r"\b(timestamp|duration)\b")


def _has_time(part: Any) -> bool:
    """Whether a type has a time among its parts."""
    if isinstance(part, Mapping):
        return part.get("type") == MOMENT["type"] or any(map(_has_time, part.values()))
    return isinstance(part, list) and any(map(_has_time, part))


def _expression(tree: Tree, checker: Checker) -> Expression:
    if isinstance(tree, Literal):
        return constant(tree.value)
    if path_of(tree) is not None:
        return _path(tree, checker)
    if hoistable(tree, checker) and isinstance(tree, Macro):
        return _comprehension(tree, checker)
    _fold(tree, checker)
    return _formula(tree, checker)


def _path(tree: Tree, checker: Checker) -> Path:
    steps: list[str | int] = []
    owners: list[Schema] = []
    here = tree
    while isinstance(here, Select | Index):
        step = here.name if isinstance(here, Select) else here.key.value if isinstance(here.key, Literal) else 0
        steps.insert(0, step if isinstance(step, str | int) else 0)
        here = here.of
        owners.insert(0, checker.schemas[id(here)])
    root = here.name if isinstance(here, Name) else ""
    defaults = {number: entry for number, (owner, step) in enumerate(zip(owners, steps, strict=True)) for entry in _default(owner, step)}
    return Path(
        root,
        tuple(steps),
        checker.schemas[id(tree)],
        checker.source(tree),
        frozenset({root}) if root in checker.types else frozenset(),
        careful=any("any" in kinds(owner) for owner in owners),
        gathers=bool(owners) and is_mapped(owners[0]),
        defaults=defaults or None,
    )


def _default(owner: Schema, step: str | int) -> list[Any]:
    parts = branches(owner)
    entry = parts[0].get("properties", {}).get(step) if len(parts) == 1 and isinstance(step, str) else None
    return [entry["default"]] if isinstance(entry, dict) and "default" in entry else []


def _comprehension(tree: Macro, checker: Checker) -> Expression:
    """A macro run in Python: its parts are expressions, that of the range first."""
    over = _expression(tree.of, checker)
    bodies = [_expression(body, checker) for body in tree.bodies]
    test = bodies[0] if tree.kind == "filter" or len(bodies) == 2 else None
    body = None if tree.kind == "filter" else bodies[-1]
    references = _references([over, *bodies]) - {tree.variable.name}
    return Comprehension(checker.source(tree), over, tree.variable.name, test, body, checker.schemas[id(tree)], references)


def _formula(tree: Tree, checker: Checker) -> Expression:
    formula = _written(tree, checker, hoist=True)
    if any(isinstance(feed.source, Comprehension) for feed in formula.feeds):
        formula = replace(formula, plainly=_written(tree, checker, hoist=False))
    if not formula.feeds:
        return constant(formula.program.run({}, formula.source))
    return formula


def _written(tree: Tree, checker: Checker, *, hoist: bool) -> Formula:
    writer = Writer(checker, hoist)
    text = writer.write(tree)
    program = cel.program(text, tuple(slot.type for slot in writer.slots))
    if program.refusal:
        code = "L056" if "recursion" in program.refusal else "L053"
        hint = "compute a part in a node of its own" if code == "L056" else "look at the types of its parts"
        raise Fault(code, f"{checker.source(tree)}: {program.refusal}", tree, hint=hint)
    feeds = tuple(
        Feed(f"v{number}", _expression(slot.tree, checker), converter(slot.schema) if slot.type != "string" else None)
        for number, slot in enumerate(writer.slots)
    )
    schema = checker.schemas[id(tree)]
    if schema == ANY:
        schema = program.schema
    return Formula(checker.source(tree), program, feeds, schema, _references(feed.source for feed in feeds))


def _fold(tree: Tree, checker: Checker) -> None:
    """Refuses what can only fail: a constant part that does, a division by zero, a pattern that RE2 does not take."""
    if _is_constant(tree, frozenset()):
        if not isinstance(tree, Literal | ListOf | MapOf):
            _try(tree, checker)
        return
    match tree:
        case Binary("/" | "%", _, right) if _is_constant(right, frozenset()) and _value(right, checker) == 0:
            raise Fault("L055", f"{checker.source(tree)} divides by zero", tree, hint="divide by something else")
        case Call("matches", of, args):
            pattern = args[-1]
            if _is_constant(pattern, frozenset()):
                _try(Call("matches", None, (Literal("", 0, 0), pattern), pattern.at, pattern.end), checker)
            for part in (*args[:-1], *([of] if of is not None else [])):
                _fold(part, checker)
        case _:
            for part in children(tree):
                _fold(part, checker)


def _is_constant(tree: Tree, bound: frozenset[str]) -> bool:
    match tree:
        case Name(name):
            return name in bound
        case Macro(_, of, variable, bodies):
            return _is_constant(of, bound) and all(_is_constant(body, bound | {variable.name}) for body in bodies)
        case _:
            return all(_is_constant(part, bound) for part in children(tree))


def _value(tree: Tree, checker: Checker) -> Any:
    return tree.value if isinstance(tree, Literal) else _try(tree, checker)


def _try(tree: Tree, checker: Checker) -> Any:
    """The value of a constant tree; a fault where it has none."""
    alone = Checker(checker.text, {})
    alone.check(tree)
    program = cel.program(Writer(alone).write(tree), ())
    if program.refusal:
        raise Fault("L053", program.refusal, tree, hint="look at the types of its parts")
    try:
        return program.run({}, checker.source(tree))
    except OrchestraError as error:
        reason = error.message.partition("}: ")[2] or error.message
        raise Fault("L055", f"{checker.source(tree)} always fails: {reason}", tree, hint="write what you mean, or leave it out") from None
