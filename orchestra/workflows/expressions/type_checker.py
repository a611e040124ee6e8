"""Type checker of references: finds the JSON Schema of a CEL tree, or the reason why it has none.

CEL's own checker treats records as maps of any values. This one uses their fields, literals and nulls. It is stricter
than CEL in three ways: a value that may be null must be compared with null before it is read, integers and floats are
not mixed, and a comparison that can never hold is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

from orchestra.core.suggestions import closest_match
from orchestra.schema.json_schema import (
    ANY,
    NULL,
    TYPE_NAMES,
    Schema,
    allowed_values,
    bundle_definitions,
    element_type,
    enum_values,
    field_type,
    format_type,
    is_map_result,
    item_type,
    mapping_value_type,
    object_type,
    union,
    union_members,
)
from orchestra.workflows.expressions.parser import (
    CelBinary,
    CelCall,
    CelConditional,
    CelIndex,
    CelList,
    CelLiteral,
    CelLogic,
    CelMacro,
    CelMap,
    CelName,
    CelSelect,
    CelTree,
    CelUnary,
)

BOOL: Schema = {"type": "boolean"}


INT: Schema = {"type": "integer"}


FLOAT: Schema = {"type": "number"}


STR: Schema = {"type": "string"}


TIME: Schema = {"x-cel": "a time", "type": "x-time"}
"""A timestamp or a duration, which CEL has and JSON does not."""


_STRING_PREDICATES = {"contains": STR, "startsWith": STR, "endsWith": STR, "matches": STR}


_CONVERSIONS = {"string": STR, "int": INT, "double": FLOAT, "bool": BOOL, "timestamp": TIME, "duration": TIME}


_TIME_PARTS = (
    "FullYear",
    "Month",
    "Date",
    "DayOfMonth",
    "DayOfWeek",
    "DayOfYear",
    "Hours",
    "Minutes",
    "Seconds",
    "Milliseconds",
)


_TIME_GETTERS = frozenset(f"get{part}" for part in _TIME_PARTS)


FUNCTIONS = ("size", "has", "dyn", *_CONVERSIONS, *_STRING_PREDICATES, "all", "exists", "exists_one", "map", "filter")


_FUNCTION_HINTS = {
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


class ExpressionError(Exception):
    """An error in an expression, from `start` to `end`."""

    def __init__(self, code: str, message: str, tree: CelTree, *, hint: str = "", why: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.hint, self.why = code, message, hint, why
        self.start, self.end = tree.start, tree.end


def value_kinds(schema: Schema) -> frozenset[str]:
    """Returns the possible kinds of a value in CEL: `str`, `int`, `float`, `bool`, `null`, `list`, `map`, `time` and
    `any`.
    """
    if isinstance(kind := schema.get("type"), str) and schema.keys().isdisjoint(_COMPOSITE_KEYWORDS):
        return _SINGLE_KINDS.get(kind, _SINGLE_KINDS[""])
    kinds: set[str] = set()
    for part in union_members(schema):
        values = enum_values(part)
        if values is not None:
            kinds |= {_KIND_BY_PYTHON_TYPE[type(value)] for value in values}
        else:
            kinds.add(_KIND_BY_JSON_TYPE.get(str(part.get("type")), "any"))
    if "float" in kinds:
        kinds.discard("int")
    return frozenset(kinds)


_KIND_BY_PYTHON_TYPE = {
    str: "str",
    int: "int",
    float: "float",
    bool: "bool",
    type(None): "null",
    list: "list",
    tuple: "list",
    dict: "map",
}


_KIND_BY_JSON_TYPE = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "null",
    "array": "list",
    "object": "map",
    "x-time": "time",
}


_SINGLE_KINDS = {"": frozenset({"any"})} | {name: frozenset({kind}) for name, kind in _KIND_BY_JSON_TYPE.items()}


_COMPOSITE_KEYWORDS = frozenset({"$ref", "anyOf", "oneOf", "allOf", "enum", "const"})
"""Keywords besides `type` that restrict a value."""


FieldPath: TypeAlias = tuple[str | int, ...]
"""A name, and the fields and indices after it."""


def path_of(tree: CelTree) -> FieldPath | None:
    """Returns the path of a tree that only follows fields and constant indices, such as `a.b[0]`; None for other
    trees.
    """
    match tree:
        case CelName(name):
            return (name,)
        case CelSelect(of, step) | CelIndex(of, CelLiteral(str(step))):
            return (*inner, step) if (inner := path_of(of)) else None
        case CelIndex(of, CelLiteral(int(step))) if step >= 0:
            return (*inner, step) if (inner := path_of(of)) else None
        case _:
            return None


class TypeChecker:
    """Finds the types of the parts of one expression; `schemas` has them by the `id` of the tree."""

    def __init__(self, text: str, types: Mapping[str, Schema]) -> None:
        self.text, self.types = text, types
        self.schemas: dict[int, Schema] = {}
        self.references: set[str] = set()
        self.narrowed: set[int] = set()
        """Trees, by `id`, whose value may be null elsewhere but not where it is read here."""
        self.variables: dict[str, Schema] = {}
        self.non_null_paths: frozenset[FieldPath] = frozenset()
        """Paths that are known not to be null here."""

    def check(self, tree: CelTree) -> Schema:
        """Returns the type of a tree. Raises `ExpressionError`."""
        if (known_schema := self.schemas.get(id(tree))) is not None:
            return known_schema
        schema = self._infer(tree)
        if self.non_null_paths and (path := path_of(tree)) is not None and path in self.non_null_paths:
            branches = [part for part in union_members(schema) if value_kinds(part) != {"null"}]
            if "null" in value_kinds(schema) and branches:
                schema = union(branches)
                self.narrowed.add(id(tree))
        self.schemas[id(tree)] = schema
        return schema

    def source(self, tree: CelTree) -> str:
        """Returns the source text of a tree."""
        return self.text[tree.start : tree.end]

    def _describe(self, tree: CelTree) -> str:
        schema = self.schemas[id(tree)]
        if isinstance(tree, CelLiteral):
            schema = {"type": schema["type"]}
        return f"{self.source(tree)} is {format_type(schema)}"

    def _infer(self, tree: CelTree) -> Schema:
        match tree:
            case CelLiteral(value):
                return {"const": value, "type": TYPE_NAMES[type(value)]}
            case CelName(name):
                return self._check_name(tree, name)
            case CelSelect(of, name):
                return self._check_select(tree, of, name)
            case CelIndex(of, key):
                return self._check_index(tree, of, key)
            case CelCall(name, of, args):
                return self._check_call(tree, name, of, args)
            case CelMacro():
                return self._check_macro(tree)
            case CelUnary(op, of):
                return self._check_unary(op, of)
            case CelBinary(op, left, right):
                return self._check_binary(tree, op, left, right)
            case CelLogic():
                return self._check_logic(tree)
            case CelConditional(test, then, otherwise):
                self._require_boolean(test)
                first = self._check_with_facts(paths_not_null(test, True), then)
                second = self._check_with_facts(paths_not_null(test, False), otherwise)
                return union([first, second])
            case CelList(items):
                parts = [self.check(item) for item in items]
                return bundle_definitions(
                    {"type": "array", "items": union(parts), "minItems": len(items), "maxItems": len(items)}
                )
            case CelMap(pairs):
                return self._check_map(pairs)

    def _check_name(self, tree: CelTree, name: str) -> Schema:
        if name in self.variables:
            return self.variables[name]
        if name not in self.types:
            near = closest_match(name, [*self.types, *self.variables])
            inputs = field_type(self.types["input"], name) if "input" in self.types else ""
            hint = (
                f"write ${{input.{name}}}"
                if isinstance(inputs, dict)
                else f"did you mean {near!r}?"
                if near
                else _available_names(self.types)
            )
            raise ExpressionError("L051", f"there is no {name!r} here", tree, hint=hint)
        self.references.add(name)
        return self.types[name]

    def _check_select(self, tree: CelTree, of: CelTree, name: str) -> Schema:
        inner = self.check(of)
        if is_map_result(inner) and name != "values":
            raise mapped_node_error(tree, self.source(of))
        field_schema = field_type(inner, name)
        if isinstance(field_schema, dict):
            return field_schema
        if field_schema.startswith("may be null"):
            raise self._null_error(tree, of, field_schema)
        raise ExpressionError("L052", field_schema, tree)

    def _null_error(self, tree: CelTree, of: CelTree, reason: str) -> ExpressionError:
        text = self.source(of)
        source = self.source(tree)
        return ExpressionError("L057", f"{text} {reason}", tree, hint=f"handle null: {text} != null ? {source} : ...")

    def _check_value(self, tree: CelTree) -> Schema:
        """Returns the type of a tree that is read as a value, and thus not as a mapped node."""
        schema = self.check(tree)
        if is_map_result(schema):
            raise mapped_node_error(tree, self.source(tree))
        return schema

    def _check_index(self, tree: CelTree, of: CelTree, key: CelTree) -> Schema:
        inner = self._check_value(of)
        if isinstance(key, CelLiteral) and isinstance(key.value, str):
            return self._check_select(tree, of, key.value)
        at = value_kinds(self._check_value(key))
        if (
            isinstance(key, CelLiteral)
            and isinstance(key.value, int)
            and not isinstance(key.value, bool)
            and key.value < 0
        ):
            text = self.source(of)
            raise ExpressionError(
                "L055",
                f"[{key.value}] is never an element",
                key,
                hint=f"from the end it is {text}[size({text}) - {-key.value}]",
            )
        if not at <= {"int", "any"} and "list" in value_kinds(inner):
            raise ExpressionError(
                "L053", f"an index is an int, and {self.source(key)} is {format_type(self.schemas[id(key)])}", key
            )
        if value_kinds(inner) == {"map"}:
            if not at & {"str", "any"}:  # otherwise it is looked up at run time
                self._require_kind(key, {"str"}, "a text, as a key is")
            return mapping_value_type(inner)
        item_schema = item_type(
            inner, key.value if isinstance(key, CelLiteral) and isinstance(key.value, int) else None
        )
        if isinstance(item_schema, dict):
            return item_schema
        raise (
            self._null_error(tree, of, item_schema)
            if item_schema.startswith("may be null")
            else ExpressionError("L052", item_schema, tree)
        )

    def _require_boolean(self, tree: CelTree) -> None:
        schema = self._check_value(tree)
        if not value_kinds(schema) <= {"bool", "any"}:
            text = self.source(tree)
            hint = f"compare it: {text} != null" if "null" in value_kinds(schema) else f"compare it: {text} == ..."
            raise ExpressionError("L053", f"{text} is {format_type(schema)}, and a condition is bool", tree, hint=hint)

    def _check_with_facts(self, facts: frozenset[FieldPath], tree: CelTree) -> Schema:
        before = self.non_null_paths
        self.non_null_paths = before | facts
        schema = self._check_value(tree)
        self.non_null_paths = before
        return schema

    def _check_logic(self, tree: CelLogic) -> Schema:
        before = self.non_null_paths
        for item in tree.items:
            self._require_boolean(item)
            self.non_null_paths |= paths_not_null(item, tree.op == "&&")
        self.non_null_paths = before
        return BOOL

    def _check_unary(self, op: str, of: CelTree) -> Schema:
        if op == "!":
            self._require_boolean(of)
            return BOOL
        return self._require_kind(of, {"int", "float"}, "a number")

    def _require_kind(self, tree: CelTree, allowed_kinds: set[str], role: str) -> Schema:
        schema = self._check_value(tree)
        actual_kinds = value_kinds(schema)
        if "null" in actual_kinds and actual_kinds - {"null"} <= allowed_kinds:
            raise self._null_error(tree, tree, f"may be null ({format_type(schema)})")
        if not actual_kinds <= allowed_kinds | {"any"}:
            raise ExpressionError("L053", f"{self._describe(tree)}, and not {role}", tree)
        return (
            {"str": STR, "int": INT, "float": FLOAT, "bool": BOOL}.get(next(iter(actual_kinds)), schema)
            if len(actual_kinds) == 1
            else ANY
        )

    def _check_binary(self, tree: CelTree, op: str, left: CelTree, right: CelTree) -> Schema:
        first, second = self._check_value(left), self._check_value(right)
        if op in ("==", "!="):
            self._check_equality(tree, left, right, first, second)
            return BOOL
        if op == "in":
            return self._check_membership(tree, left, right, second)
        return self._check_arithmetic(tree, op, (left, first), (right, second))

    def _check_equality(self, tree: CelTree, left: CelTree, right: CelTree, first: Schema, second: Schema) -> None:
        a, b = value_kinds(first), value_kinds(second)
        for operand, other_operand, schema in ((left, right, first), (right, left, second)):
            if isinstance(other_operand, CelLiteral):
                self._reject_impossible(tree, operand, other_operand, schema)
        if "any" in a | b or a & b:
            return
        numbers = {"int", "float"}
        if a & numbers and b & numbers:
            raise self._mixed_numbers_error(tree, left, right, a)
        raise ExpressionError("L053", f"{self._describe(left)} and {self._describe(right)}: they are never equal", tree)

    def _mixed_numbers_error(self, tree: CelTree, left: CelTree, right: CelTree, a: frozenset[str]) -> ExpressionError:
        integer_operand = left if "int" in a else right
        hint = (
            f"write {integer_operand.value}.0"
            if isinstance(integer_operand, CelLiteral)
            else f"write double({self.source(integer_operand)})"
        )
        return ExpressionError("L053", f"an int and a float are not mixed in {self.source(tree)}", tree, hint=hint)

    def _reject_impossible(self, tree: CelTree, operand: CelTree, literal: CelLiteral, schema: Schema) -> None:
        """Refuses the comparison of a value with a literal that its type excludes."""
        value, text = literal.value, self.source(operand)
        if isinstance(operand, CelLiteral):
            return
        if value is None:
            if "null" not in value_kinds(schema) and "any" not in value_kinds(schema):
                raise ExpressionError(
                    "L054", f"{text} is {format_type(schema)}: it is never null", tree, hint="leave the comparison out"
                )
            return
        if (allowed_constants := allowed_values(schema, value)) is not None:
            values_text = ", ".join(map(repr, allowed_constants.values[:8]))
            hint = (
                f"did you mean {allowed_constants.suggestion!r}?"
                if allowed_constants.suggestion
                else f"it is one of {values_text}"
            )
            raise ExpressionError("L054", f"{text} is {format_type(schema)}: it is never {value!r}", tree, hint=hint)

    def _check_membership(self, tree: CelTree, left: CelTree, right: CelTree, second: Schema) -> Schema:
        first = self.schemas[id(left)]
        if isinstance(right, CelList):
            for item in right.items:
                if isinstance(item, CelLiteral):
                    self._reject_impossible(tree, left, item, first)
        if not value_kinds(second) <= {"list", "map", "any"}:
            hint = (
                f"in a text: {self.source(right)}.contains({self.source(left)})"
                if value_kinds(second) == {"str"}
                else ""
            )
            raise ExpressionError(
                "L053", f"{self.source(right)} is {format_type(second)}, and not a list", right, hint=hint
            )
        inside = element_type(second) if value_kinds(second) == {"list"} else ANY
        a, b = value_kinds(first), value_kinds(inside) if isinstance(inside, dict) else frozenset({"any"})
        if "any" not in a | b and not a & b and not (isinstance(right, CelList) and not right.items):
            if a | b == {"int", "float"}:
                raise self._mixed_numbers_error(tree, left, right, a)
            raise ExpressionError("L053", f"{self._describe(left)}, and {self._describe(right)}", tree)
        return BOOL

    def _check_arithmetic(
        self, tree: CelTree, op: str, first: tuple[CelTree, Schema], second: tuple[CelTree, Schema]
    ) -> Schema:
        """Checks arithmetic and order comparisons."""
        order = op in ("<", "<=", ">", ">=")
        allowed_kinds = {"+": {"str", "int", "float", "list", "time"}, "%": {"int"}}.get(op, {"int", "float", "time"})
        allowed_kinds = {"str", "int", "float", "bool", "time"} if order else allowed_kinds
        names = {"str": "text", "int": "number", "float": "number", "list": "list", "bool": "bool"}
        words = " or a ".join(dict.fromkeys(names[kind] for kind in ("int", "str", "list") if kind in allowed_kinds))
        for operand, _ in (first, second):
            self._require_kind(operand, allowed_kinds, "an int" if op == "%" else f"a {words}")
        (left, a_type), (right, b_type) = first, second
        a, b = value_kinds(a_type), value_kinds(b_type)
        if "any" in a | b or "time" in a | b:
            return BOOL if order else TIME if "time" in a | b else ANY
        if a != b:
            if a | b == {"int", "float"}:
                raise self._mixed_numbers_error(tree, left, right, a)
            hint = (
                f"write string({self.source(left if b == {'str'} else right)})"
                if op == "+" and {"str"} in (a, b)
                else ""
            )
            raise ExpressionError("L053", f"{self._describe(left)} and {self._describe(right)}", tree, hint=hint)
        if order:
            return BOOL
        if a == {"list"}:
            parts = [part for part in (element_type(a_type), element_type(b_type)) if isinstance(part, dict)]
            return bundle_definitions({"type": "array", "items": union(parts)})
        return {"str": STR, "int": INT, "float": FLOAT}.get(next(iter(a)), ANY) if len(a) == 1 else ANY

    def _check_call(self, tree: CelTree, name: str, of: CelTree | None, args: tuple[CelTree, ...]) -> Schema:
        if name == "has" and of is None:
            return self._check_has(tree, args)
        operands = (of, *args) if of is not None else args
        if name == "size":
            self._check_arity(tree, name, operands, 1)
            self._require_kind(operands[0], {"str", "list", "map"}, "a text, a list or a mapping")
            return INT
        if name in _STRING_PREDICATES and (of is not None or name == "matches"):
            self._check_arity(tree, name, operands, 2)
            for operand in operands:
                self._require_kind(operand, {"str"}, "a text")
            return BOOL
        if name in _TIME_GETTERS and of is not None:
            for operand in operands:
                self._check_value(operand)
            return INT
        if name in _CONVERSIONS and of is None:
            self._check_arity(tree, name, operands, 1)
            self._require_kind(operands[0], {"str", "int", "float", "bool", "time"}, f"what {name}() takes")
            return _CONVERSIONS[name]
        if name == "dyn" and of is None:
            self._check_arity(tree, name, operands, 1)
            self._check_value(operands[0])
            return ANY
        near = closest_match(name, FUNCTIONS)
        hint = f"did you mean {near!r}?" if near else "functions: " + ", ".join(FUNCTIONS)
        hint = f"write {_FUNCTION_HINTS[name]}" if name in _FUNCTION_HINTS else hint
        message = f"there is no function {name!r}" + (" of a value" if of is not None and name in FUNCTIONS else "")
        raise ExpressionError("L060", message, tree, hint=hint)

    def _check_arity(self, tree: CelTree, name: str, operands: tuple[CelTree, ...], arity: int) -> None:
        if len(operands) != arity:
            raise ExpressionError("L053", f"{name} takes {arity}, got {len(operands)}", tree)

    def _check_has(self, tree: CelTree, args: tuple[CelTree, ...]) -> Schema:
        if len(args) != 1 or not isinstance(args[0], CelSelect):
            raise ExpressionError("L053", "has() takes a field, such as has(a.b)", tree)
        self.check(args[0])
        return BOOL

    def _check_macro(self, tree: CelMacro) -> Schema:
        over = self._check_value(tree.items)
        if not value_kinds(over) <= {"list", "map", "any"}:
            if "null" in value_kinds(over):
                raise self._null_error(tree, tree.items, f"may be null ({format_type(over)})")
            raise ExpressionError(
                "L053", f"{self.source(tree.items)} is {format_type(over)}, and not a list", tree.items
            )
        name = tree.variable.name
        if name in self.variables or name in self.types:
            raise ExpressionError(
                "L051", f"the variable {name!r} hides another of that name", tree.variable, hint="give it another name"
            )
        inner = element_type(over) if value_kinds(over) == {"list"} else STR if value_kinds(over) == {"map"} else ANY
        self.variables[name] = inner if isinstance(inner, dict) else ANY
        schema = self._check_macro_bodies(tree, over)
        del self.variables[name]
        return schema

    def _check_macro_bodies(self, tree: CelMacro, over: Schema) -> Schema:
        if tree.kind != "map":
            self._require_boolean(tree.bodies[0])
            plain = {key: value for key, value in over.items() if key not in ("minItems", "uniqueItems")}
            return BOOL if tree.kind != "filter" else plain if value_kinds(over) == {"list"} else {"type": "array"}
        before = self.non_null_paths
        if len(tree.bodies) == 2:
            self._require_boolean(tree.bodies[0])
            self.non_null_paths |= paths_not_null(tree.bodies[0], True)
        body_schema = self._check_value(tree.bodies[-1])
        self.non_null_paths = before
        return bundle_definitions({"type": "array", "items": body_schema})

    def _check_map(self, pairs: tuple[tuple[CelTree, CelTree], ...]) -> Schema:
        fields: dict[str, Schema] = {}
        other_schemas: list[Schema] = []
        for key, value in pairs:
            body_schema = self._check_value(value)
            if isinstance(key, CelLiteral) and isinstance(key.value, str):
                if key.value in fields:
                    raise ExpressionError("L053", f"the key {key.value!r} occurs twice", key)
                fields[key.value] = body_schema
            else:
                self._require_kind(key, {"str"}, "a text, as a key is")
                other_schemas.append(body_schema)
        if other_schemas:
            return bundle_definitions(
                {"type": "object", "additionalProperties": union([*fields.values(), *other_schemas])}
            )
        return bundle_definitions(object_type(fields))


def paths_not_null(test: CelTree, holds: bool) -> frozenset[FieldPath]:
    """Returns the paths that are not null if a condition holds, or if it does not."""
    match test:
        case CelUnary("!", of):
            return paths_not_null(of, not holds)
        case CelLogic(op, items) if (op == "&&") == holds:
            return frozenset().union(*(paths_not_null(item, holds) for item in items))
        case CelBinary("!=" | "==" as op, operand, CelLiteral(None)) | CelBinary(
            "!=" | "==" as op, CelLiteral(None), operand
        ) if (op == "!=") == holds:
            path = path_of(operand)
            return frozenset({path}) if path else frozenset()
        case CelBinary("==", operand, CelLiteral(value)) if holds and value is not None:
            path = path_of(operand)
            return frozenset({path}) if path else frozenset()
        case _:
            return frozenset()


def mapped_node_error(tree: CelTree, text: str) -> ExpressionError:
    """Returns the error of reading a node under `each` without `.values`."""
    reason = f"{text} runs once for each element, and some may give no value"
    return ExpressionError(
        "L058",
        f"{text} is not one value",
        tree,
        hint=f"write ${{{text}.values}} for the list of those that did",
        why=reason,
    )


def _available_names(types: Mapping[str, Schema]) -> str:
    return "there is: " + ", ".join(sorted(types)) if types else "nothing can be read here"


__all__ = [
    "BOOL",
    "FLOAT",
    "FUNCTIONS",
    "INT",
    "NULL",
    "STR",
    "TIME",
    "ExpressionError",
    "TypeChecker",
    "mapped_node_error",
    "path_of",
    "paths_not_null",
    "value_kinds",
]


TEXT_FORM_REASON = "it passes between nodes as a text, and texts compare and add otherwise"


_FORMAT_NAMES = {
    "date-time": "a date and time",
    "time": "a time of day",
    "duration": "a duration",
    "decimal": "a decimal number",
    "date": "a date",
}


_ORDER_OPERATORS = ("<", "<=", ">", ">=")


_FORMAT_BY_TYPE: tuple[tuple[type, str], ...] = (
    (datetime, "date-time"),
    (date, "date"),
    (time, "time"),
    (timedelta, "duration"),
    (Decimal, "decimal"),
)


def constant_format(value: Any) -> str:
    """Returns the format of a Python value that is passed as a text with a meaning; empty for other values."""
    return next((name for kind, name in _FORMAT_BY_TYPE if isinstance(value, kind)), "")


def misread_operand(op: str, left: Schema, right: Schema) -> str:
    """Describes an operand whose meaning an operator would ignore by comparing texts; empty if there is none."""
    right = _element_type(right) if op == "in" else right
    if op == "+":
        return _text_meaning(left) if _text_meaning(right) else ""
    a, b = _text_meaning(left, except_format="date"), _text_meaning(right, except_format="date")
    if op in _ORDER_OPERATORS or op == "in":
        return a or b
    if a and b:
        return a
    number = _FORMAT_NAMES["decimal"]
    return number if (a == number and _is_numeric(right)) or (b == number and _is_numeric(left)) else ""


def _text_meaning(schema: Schema, except_format: str = "") -> str:
    """Returns the meaning of a text of this type; empty for a plain text."""
    formats = (str(part.get("format")) for part in union_members(schema))
    return next(
        (
            _FORMAT_NAMES[format_name]
            for format_name in formats
            if format_name in _FORMAT_NAMES and format_name != except_format
        ),
        "",
    )


def _is_numeric(schema: Schema) -> bool:
    """Whether a value may be a number, which never equals a decimal number written as a text."""
    return any(part.get("type") in ("integer", "number") for part in union_members(schema))


def _element_type(schema: Schema) -> Schema:
    """Returns the type of a list's elements."""
    item_schema = element_type(schema) if all(part.get("type") == "array" for part in union_members(schema)) else ANY
    return item_schema if isinstance(item_schema, dict) else ANY
