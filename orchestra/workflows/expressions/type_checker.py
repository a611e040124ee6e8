"""The types of references: what a tree of CEL gives, by JSON Schema, and why it gives nothing.

CEL's own checker sees records as maps of anything; this one knows their fields, their literals and their nulls. It is
stricter than CEL in three ways: what may be null is compared with null before it is read, integers and floats are not
mixed, and a comparison that can never hold is a fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from orchestra.core.suggestions import nearest
from orchestra.schema.json_schema import (
    ANY,
    NULL,
    TYPE_NAMES,
    Schema,
    branches,
    bundled,
    choices,
    elements,
    entries,
    field,
    is_mapped,
    item,
    others,
    record,
    show,
    union,
)
from orchestra.workflows.expressions.parser import (
    Binary,
    Call,
    Choose,
    Index,
    ListOf,
    Literal,
    Logic,
    Macro,
    MapOf,
    Name,
    Select,
    Tree,
    Unary,
)

BOOL: Schema = {"type": "boolean"}
INT: Schema = {"type": "integer"}
FLOAT: Schema = {"type": "number"}
STR: Schema = {"type": "string"}
MOMENT: Schema = {"x-cel": "a time", "type": "x-time"}
"""A timestamp or a duration: CEL computes with them, JSON has none."""

_TESTS = {"contains": STR, "startsWith": STR, "endsWith": STR, "matches": STR}
_TO = {"string": STR, "int": INT, "double": FLOAT, "bool": BOOL, "timestamp": MOMENT, "duration": MOMENT}
_PARTS = ("FullYear", "Month", "Date", "DayOfMonth", "DayOfWeek", "DayOfYear", "Hours", "Minutes", "Seconds", "Milliseconds")
_TIMES = frozenset(f"get{part}" for part in _PARTS)
FUNCTIONS = ("size", "has", "dyn", *_TO, *_TESTS, "all", "exists", "exists_one", "map", "filter")
_ELSEWHERE = {
    "len": "size(x)",
    "length": "size(x)",
    "str": "string(x)",
    "float": "double(x)",
    "lower": "a tool that does it",
    "upper": "a tool that does it",
    "split": "a tool that does it",
    "any": "list.exists(x, ...)",
    "startswith": "text.startsWith(...)",
    "endswith": "text.endsWith(...)",
    "includes": "text.contains(...)",
}


class Fault(Exception):
    """What is wrong with an expression, from `at` to `end`."""

    def __init__(self, code: str, message: str, tree: Tree, *, hint: str = "", why: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.hint, self.why = code, message, hint, why
        self.at, self.end = tree.at, tree.end


def kinds(schema: Schema) -> frozenset[str]:
    """What CEL can do with a value: of `str`, `int`, `float`, `bool`, `null`, `list`, `map`, `time` and `any`, those that it may be."""
    if isinstance(kind := schema.get("type"), str) and schema.keys().isdisjoint(_SEVERAL):
        return _ALONE.get(kind, _ALONE[""])
    found: set[str] = set()
    for part in branches(schema):
        values = choices(part)
        if values is not None:
            found |= {_KINDS[type(value)] for value in values}
        else:
            found.add(_TYPES.get(str(part.get("type")), "any"))
    if "float" in found:
        found.discard("int")
    return frozenset(found)


_KINDS = {str: "str", int: "int", float: "float", bool: "bool", type(None): "null", list: "list", tuple: "list", dict: "map"}
_TYPES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "null",
    "array": "list",
    "object": "map",
    "x-time": "time",
}
_ALONE = {"": frozenset({"any"})} | {name: frozenset({kind}) for name, kind in _TYPES.items()}
_SEVERAL = frozenset({"$ref", "anyOf", "oneOf", "allOf", "enum", "const"})
"""Keywords beside `type` that say more of what a value may be."""


Path: TypeAlias = tuple[str | int, ...]
"""A name, and the fields and indices that are followed from there."""


def path_of(tree: Tree) -> Path | None:
    """The path of a tree that only follows fields and constant indices, such as `a.b[0]`; None for another."""
    match tree:
        case Name(name):
            return (name,)
        case Select(of, step) | Index(of, Literal(str(step))):
            return (*inner, step) if (inner := path_of(of)) else None
        case Index(of, Literal(int(step))) if step >= 0:
            return (*inner, step) if (inner := path_of(of)) else None
        case _:
            return None


class Checker:
    """The types of one expression's parts; `schemas` has them by the `id` of the tree."""

    def __init__(self, text: str, types: Mapping[str, Schema]) -> None:
        self.text, self.types = text, types
        self.schemas: dict[int, Schema] = {}
        self.references: set[str] = set()
        self.narrowed: set[int] = set()
        """Trees, by `id`, whose value may be null elsewhere, though not where it is read here."""
        self.variables: dict[str, Schema] = {}
        self.present: frozenset[Path] = frozenset()
        """Paths that are known not to be null, here."""

    def check(self, tree: Tree) -> Schema:
        """The type of what the tree gives. Raises `Fault`."""
        if (known := self.schemas.get(id(tree))) is not None:
            return known
        schema = self._check(tree)
        if self.present and (path := path_of(tree)) is not None and path in self.present:
            left = [part for part in branches(schema) if kinds(part) != {"null"}]
            if "null" in kinds(schema) and left:
                schema = union(left)
                self.narrowed.add(id(tree))
        self.schemas[id(tree)] = schema
        return schema

    def source(self, tree: Tree) -> str:
        """The part of the text that a tree was read from."""
        return self.text[tree.at : tree.end]

    def _said(self, tree: Tree) -> str:
        schema = self.schemas[id(tree)]
        if isinstance(tree, Literal):
            schema = {"type": schema["type"]}
        return f"{self.source(tree)} is {show(schema)}"

    def _check(self, tree: Tree) -> Schema:
        match tree:
            case Literal(value):
                return {"const": value, "type": TYPE_NAMES[type(value)]}
            case Name(name):
                return self._name(tree, name)
            case Select(of, name):
                return self._select(tree, of, name)
            case Index(of, key):
                return self._index(tree, of, key)
            case Call(name, of, args):
                return self._call(tree, name, of, args)
            case Macro():
                return self._macro(tree)
            case Unary(op, of):
                return self._unary(op, of)
            case Binary(op, left, right):
                return self._binary(tree, op, left, right)
            case Logic():
                return self._logic(tree)
            case Choose(test, then, otherwise):
                self._boolean(test)
                first = self._knowing(truths(test, True), then)
                second = self._knowing(truths(test, False), otherwise)
                return union([first, second])
            case ListOf(items):
                parts = [self.check(one) for one in items]
                return bundled({"type": "array", "items": union(parts), "minItems": len(items), "maxItems": len(items)})
            case MapOf(pairs):
                return self._mapping(pairs)

    def _name(self, tree: Tree, name: str) -> Schema:
        if name in self.variables:
            return self.variables[name]
        if name not in self.types:
            near = nearest(name, [*self.types, *self.variables])
            inputs = field(self.types["input"], name) if "input" in self.types else ""
            hint = f"write ${{input.{name}}}" if isinstance(inputs, dict) else f"did you mean {near!r}?" if near else _names(self.types)
            raise Fault("L051", f"there is no {name!r} here", tree, hint=hint)
        self.references.add(name)
        return self.types[name]

    def _select(self, tree: Tree, of: Tree, name: str) -> Schema:
        inner = self.check(of)
        if is_mapped(inner) and name != "values":
            raise mapped_fault(tree, self.source(of))
        found = field(inner, name)
        if isinstance(found, dict):
            return found
        if found.startswith("may be null"):
            raise self._null(tree, of, found)
        raise Fault("L052", found, tree)

    def _null(self, tree: Tree, of: Tree, reason: str) -> Fault:
        text = self.source(of)
        whole = self.source(tree)
        return Fault("L057", f"{text} {reason}", tree, hint=f"say what happens then: {text} != null ? {whole} : ...")

    def _plain(self, tree: Tree) -> Schema:
        """The type of a tree that is read as a value of its own, and so is no mapped node."""
        schema = self.check(tree)
        if is_mapped(schema):
            raise mapped_fault(tree, self.source(tree))
        return schema

    def _index(self, tree: Tree, of: Tree, key: Tree) -> Schema:
        inner = self._plain(of)
        if isinstance(key, Literal) and isinstance(key.value, str):
            return self._select(tree, of, key.value)
        at = kinds(self._plain(key))
        if isinstance(key, Literal) and isinstance(key.value, int) and not isinstance(key.value, bool) and key.value < 0:
            text = self.source(of)
            raise Fault("L055", f"[{key.value}] is never an element", key, hint=f"from the end it is {text}[size({text}) - {-key.value}]")
        if not at <= {"int", "any"} and "list" in kinds(inner):
            raise Fault("L053", f"an index is an int, and {self.source(key)} is {show(self.schemas[id(key)])}", key)
        if kinds(inner) == {"map"}:
            if not at & {"str", "any"}:  # else it is looked up when it is known
                self._one_of(key, {"str"}, "a text, as a key is")
            return entries(inner)
        found = item(inner, key.value if isinstance(key, Literal) and isinstance(key.value, int) else None)
        if isinstance(found, dict):
            return found
        raise self._null(tree, of, found) if found.startswith("may be null") else Fault("L052", found, tree)

    def _boolean(self, tree: Tree) -> None:
        schema = self._plain(tree)
        if not kinds(schema) <= {"bool", "any"}:
            text = self.source(tree)
            hint = f"compare it: {text} != null" if "null" in kinds(schema) else f"compare it: {text} == ..."
            raise Fault("L053", f"{text} is {show(schema)}, and a condition is bool", tree, hint=hint)

    def _knowing(self, facts: frozenset[Path], tree: Tree) -> Schema:
        before = self.present
        self.present = before | facts
        schema = self._plain(tree)
        self.present = before
        return schema

    def _logic(self, tree: Logic) -> Schema:
        before = self.present
        for one in tree.items:
            self._boolean(one)
            self.present |= truths(one, tree.op == "&&")
        self.present = before
        return BOOL

    def _unary(self, op: str, of: Tree) -> Schema:
        if op == "!":
            self._boolean(of)
            return BOOL
        return self._one_of(of, {"int", "float"}, "a number")

    def _one_of(self, tree: Tree, allowed: set[str], what: str) -> Schema:
        schema = self._plain(tree)
        have = kinds(schema)
        if "null" in have and have - {"null"} <= allowed:
            raise self._null(tree, tree, f"may be null ({show(schema)})")
        if not have <= allowed | {"any"}:
            raise Fault("L053", f"{self._said(tree)}, and not {what}", tree)
        return {"str": STR, "int": INT, "float": FLOAT, "bool": BOOL}.get(next(iter(have)), schema) if len(have) == 1 else ANY

    def _binary(self, tree: Tree, op: str, left: Tree, right: Tree) -> Schema:
        first, second = self._plain(left), self._plain(right)
        if op in ("==", "!="):
            self._compared(tree, left, right, first, second)
            return BOOL
        if op == "in":
            return self._contained(tree, left, right, second)
        return self._computed(tree, op, (left, first), (right, second))

    def _compared(self, tree: Tree, left: Tree, right: Tree, first: Schema, second: Schema) -> None:
        a, b = kinds(first), kinds(second)
        for one, other, schema in ((left, right, first), (right, left, second)):
            if isinstance(other, Literal):
                self._never(tree, one, other, schema)
        if "any" in a | b or a & b:
            return
        numbers = {"int", "float"}
        if a & numbers and b & numbers:
            raise self._mixed(tree, left, right, a)
        raise Fault("L053", f"{self._said(left)} and {self._said(right)}: they are never equal", tree)

    def _mixed(self, tree: Tree, left: Tree, right: Tree, a: frozenset[str]) -> Fault:
        whole = left if "int" in a else right
        hint = f"write {whole.value}.0" if isinstance(whole, Literal) else f"write double({self.source(whole)})"
        return Fault("L053", f"an int and a float are not mixed in {self.source(tree)}", tree, hint=hint)

    def _never(self, tree: Tree, one: Tree, other: Literal, schema: Schema) -> None:
        """Refuses the comparison of a value with a literal that its type never has."""
        value, text = other.value, self.source(one)
        if isinstance(one, Literal):
            return
        if value is None:
            if "null" not in kinds(schema) and "any" not in kinds(schema):
                raise Fault("L054", f"{text} is {show(schema)}: it is never null", tree, hint="leave the comparison out")
            return
        if (found := others(schema, value)) is not None:
            known = ", ".join(map(repr, found.values[:8]))
            hint = f"did you mean {found.near!r}?" if found.near else f"it is one of {known}"
            raise Fault("L054", f"{text} is {show(schema)}: it is never {value!r}", tree, hint=hint)

    def _contained(self, tree: Tree, left: Tree, right: Tree, second: Schema) -> Schema:
        first = self.schemas[id(left)]
        if isinstance(right, ListOf):
            for one in right.items:
                if isinstance(one, Literal):
                    self._never(tree, left, one, first)
        if not kinds(second) <= {"list", "map", "any"}:
            hint = f"in a text: {self.source(right)}.contains({self.source(left)})" if kinds(second) == {"str"} else ""
            raise Fault("L053", f"{self.source(right)} is {show(second)}, and not a list", right, hint=hint)
        inside = elements(second) if kinds(second) == {"list"} else ANY
        a, b = kinds(first), kinds(inside) if isinstance(inside, dict) else frozenset({"any"})
        if "any" not in a | b and not a & b and not (isinstance(right, ListOf) and not right.items):
            if a | b == {"int", "float"}:
                raise self._mixed(tree, left, right, a)
            raise Fault("L053", f"{self._said(left)}, and {self._said(right)}", tree)
        return BOOL

    def _computed(self, tree: Tree, op: str, first: tuple[Tree, Schema], second: tuple[Tree, Schema]) -> Schema:
        """Arithmetic, and the order of values."""
        order = op in ("<", "<=", ">", ">=")
        allowed = {"+": {"str", "int", "float", "list", "time"}, "%": {"int"}}.get(op, {"int", "float", "time"})
        allowed = {"str", "int", "float", "bool", "time"} if order else allowed
        names = {"str": "text", "int": "number", "float": "number", "list": "list", "bool": "bool"}
        words = " or a ".join(dict.fromkeys(names[kind] for kind in ("int", "str", "list") if kind in allowed))
        for one, _ in (first, second):
            self._one_of(one, allowed, "an int" if op == "%" else f"a {words}")
        (left, a_type), (right, b_type) = first, second
        a, b = kinds(a_type), kinds(b_type)
        if "any" in a | b or "time" in a | b:
            return BOOL if order else MOMENT if "time" in a | b else ANY
        if a != b:
            if a | b == {"int", "float"}:
                raise self._mixed(tree, left, right, a)
            hint = f"write string({self.source(left if b == {'str'} else right)})" if op == "+" and {"str"} in (a, b) else ""
            raise Fault("L053", f"{self._said(left)} and {self._said(right)}", tree, hint=hint)
        if order:
            return BOOL
        if a == {"list"}:
            parts = [part for part in (elements(a_type), elements(b_type)) if isinstance(part, dict)]
            return bundled({"type": "array", "items": union(parts)})
        return {"str": STR, "int": INT, "float": FLOAT}.get(next(iter(a)), ANY) if len(a) == 1 else ANY

    def _call(self, tree: Tree, name: str, of: Tree | None, args: tuple[Tree, ...]) -> Schema:
        if name == "has" and of is None:
            return self._has(tree, args)
        given = (of, *args) if of is not None else args
        if name == "size":
            self._counted(tree, name, given, 1)
            self._one_of(given[0], {"str", "list", "map"}, "a text, a list or a mapping")
            return INT
        if name in _TESTS and (of is not None or name == "matches"):
            self._counted(tree, name, given, 2)
            for one in given:
                self._one_of(one, {"str"}, "a text")
            return BOOL
        if name in _TIMES and of is not None:
            for one in given:
                self._plain(one)
            return INT
        if name in _TO and of is None:
            self._counted(tree, name, given, 1)
            self._one_of(given[0], {"str", "int", "float", "bool", "time"}, f"what {name}() takes")
            return _TO[name]
        if name == "dyn" and of is None:
            self._counted(tree, name, given, 1)
            self._plain(given[0])
            return ANY
        near = nearest(name, FUNCTIONS)
        hint = f"did you mean {near!r}?" if near else "functions: " + ", ".join(FUNCTIONS)
        hint = f"write {_ELSEWHERE[name]}" if name in _ELSEWHERE else hint
        said = f"there is no function {name!r}" + (" of a value" if of is not None and name in FUNCTIONS else "")
        raise Fault("L060", said, tree, hint=hint)

    def _counted(self, tree: Tree, name: str, given: tuple[Tree, ...], wanted: int) -> None:
        if len(given) != wanted:
            raise Fault("L053", f"{name} takes {wanted}, got {len(given)}", tree)

    def _has(self, tree: Tree, args: tuple[Tree, ...]) -> Schema:
        if len(args) != 1 or not isinstance(args[0], Select):
            raise Fault("L053", "has() takes a field, such as has(a.b)", tree)
        self.check(args[0])
        return BOOL

    def _macro(self, tree: Macro) -> Schema:
        over = self._plain(tree.of)
        if not kinds(over) <= {"list", "map", "any"}:
            if "null" in kinds(over):
                raise self._null(tree, tree.of, f"may be null ({show(over)})")
            raise Fault("L053", f"{self.source(tree.of)} is {show(over)}, and not a list", tree.of)
        name = tree.variable.name
        if name in self.variables or name in self.types:
            raise Fault("L051", f"the variable {name!r} hides another of that name", tree.variable, hint="give it another name")
        inner = elements(over) if kinds(over) == {"list"} else STR if kinds(over) == {"map"} else ANY
        self.variables[name] = inner if isinstance(inner, dict) else ANY
        schema = self._bodies(tree, over)
        del self.variables[name]
        return schema

    def _bodies(self, tree: Macro, over: Schema) -> Schema:
        if tree.kind != "map":
            self._boolean(tree.bodies[0])
            plain = {key: value for key, value in over.items() if key not in ("minItems", "uniqueItems")}
            return BOOL if tree.kind != "filter" else plain if kinds(over) == {"list"} else {"type": "array"}
        before = self.present
        if len(tree.bodies) == 2:
            self._boolean(tree.bodies[0])
            self.present |= truths(tree.bodies[0], True)
        made = self._plain(tree.bodies[-1])
        self.present = before
        return bundled({"type": "array", "items": made})

    def _mapping(self, pairs: tuple[tuple[Tree, Tree], ...]) -> Schema:
        fields: dict[str, Schema] = {}
        others: list[Schema] = []
        for key, value in pairs:
            made = self._plain(value)
            if isinstance(key, Literal) and isinstance(key.value, str):
                if key.value in fields:
                    raise Fault("L053", f"the key {key.value!r} stands twice", key)
                fields[key.value] = made
            else:
                self._one_of(key, {"str"}, "a text, as a key is")
                others.append(made)
        if others:
            return bundled({"type": "object", "additionalProperties": union([*fields.values(), *others])})
        return bundled(record(fields))


def truths(test: Tree, holds: bool) -> frozenset[Path]:
    """The paths that are not null where a condition holds, or does not."""
    match test:
        case Unary("!", of):
            return truths(of, not holds)
        case Logic(op, items) if (op == "&&") == holds:
            return frozenset().union(*(truths(one, holds) for one in items))
        case Binary("!=" | "==" as op, left, Literal(None)) | Binary("!=" | "==" as op, Literal(None), left) if (op == "!=") == holds:
            path = path_of(left)
            return frozenset({path}) if path else frozenset()
        case Binary("==", left, Literal(value)) if holds and value is not None:
            path = path_of(left)
            return frozenset({path}) if path else frozenset()
        case _:
            return frozenset()


def mapped_fault(tree: Tree, text: str) -> Fault:
    """The fault of reading a node under `each` without `.values`."""
    why = f"{text} runs once for each element, and some may give no value"
    return Fault("L058", f"{text} is not one value", tree, hint=f"write ${{{text}.values}} for the list of those that did", why=why)


def _names(types: Mapping[str, Schema]) -> str:
    return "there is: " + ", ".join(sorted(types)) if types else "nothing can be read here"


__all__ = ["BOOL", "FLOAT", "FUNCTIONS", "INT", "MOMENT", "NULL", "STR", "Checker", "Fault", "kinds", "mapped_fault", "path_of", "truths"]
