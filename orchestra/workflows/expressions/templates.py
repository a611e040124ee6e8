"""Compiles templates against the types of the names that they read.

A text that is exactly one `${...}` keeps the type of its value; any other text is a string; `$${` is an escaped `${`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec

from orchestra.core.errors import InputError, InputErrors, OrchestraError, SourceLocation
from orchestra.schema.json_schema import ANY, MAP_MARKER, TYPE_NAMES, Schema, format_type, is_map_result, union_members
from orchestra.workflows.expressions import cel
from orchestra.workflows.expressions.cel_values import cel_type, make_converter
from orchestra.workflows.expressions.evaluation import (
    CelExpression,
    Comprehension,
    ConstantFormula,
    IntegerExpression,
    ListExpression,
    MappingExpression,
    PathExpression,
    TextExpression,
    VariableBinding,
)
from orchestra.workflows.expressions.parser import (
    KEYWORDS,
    MAX_PLAIN_LENGTH,
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
    CelSyntaxError,
    CelTree,
    CelUnary,
    PlainPath,
    children,
    parse,
    parse_plain_path,
    parse_plain_template,
    sole_reference,
    split_template,
    to_cel_literal,
)
from orchestra.workflows.expressions.type_checker import (
    STR,
    TIME,
    ExpressionError,
    TypeChecker,
    mapped_node_error,
    path_of,
    value_kinds,
)
from orchestra.workflows.program import Expression

MAX_DEPTH = 64


LocationLookup: TypeAlias = Callable[[tuple[str | int, ...]], SourceLocation | None]
"""Returns the location of the part of a template at a path; `()` is the template itself."""


def compile_template(value: Any, types: Mapping[str, Schema], location_of: LocationLookup | None = None) -> Expression:
    """Compiles a template. `types` are the types of the names that it may read.

    Raises `InputError` for one error (L050 to L060), `InputErrors` for several in different parts.
    """
    return _compile(value, types, location_of or _no_location, ())


def _no_location(path: tuple[str | int, ...]) -> SourceLocation | None:
    return None


def _compile(
    value: Any, types: Mapping[str, Schema], location_of: LocationLookup, steps: tuple[str | int, ...]
) -> Expression:
    if len(steps) > MAX_DEPTH:
        raise InputError(
            "L011", f"nested deeper than {MAX_DEPTH}", location=location_of(()), hint="build the value in a tool"
        )
    if isinstance(value, str):
        if "${" not in value:
            return constant_expression(value)
        if (path_expression := compile_path(value, types)) is not None:
            return path_expression
        return _compile_text(value, types, location_of(steps))
    if isinstance(value, dict | Mapping):
        inner = _compile_parts(value.items(), types, location_of, steps)
        if all(isinstance(part, ConstantFormula) for part in inner.values()):
            return constant_expression({key: part.evaluate({}) for key, part in inner.items()})
        return MappingExpression(inner, _all_references(inner.values()))
    if isinstance(value, list | tuple):
        expressions = tuple(_compile_parts(enumerate(value), types, location_of, steps).values())
        if all(isinstance(part, ConstantFormula) for part in expressions):
            return constant_expression([part.evaluate({}) for part in expressions])
        return ListExpression(
            expressions,
            _all_references(expressions),
            ListExpression.tuple_schema([part.schema for part in expressions]),
        )
    return constant_expression(value)


def _compile_parts(
    entries: Any, types: Mapping[str, Schema], location_of: LocationLookup, steps: tuple[str | int, ...]
) -> dict[Any, Expression]:
    expressions: dict[Any, Expression] = {}
    errors: list[InputError] = []
    for key, part in entries:
        try:
            expressions[key] = _compile(part, types, location_of, (*steps, key))
        except InputErrors as several:
            errors += several.errors
        except InputError as error:
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 else InputErrors(errors)
    return expressions


def _all_references(parts: Iterable[Expression]) -> frozenset[str]:
    name_sets = [names for part in parts if (names := part.references)]
    return _NO_NAMES if not name_sets else name_sets[0] if len(name_sets) == 1 else _NO_NAMES.union(*name_sets)


_NO_NAMES: frozenset[str] = frozenset()


def constant_expression(value: Any) -> ConstantFormula:
    """Returns the expression of a constant. Its texts are not templates."""
    kind = TYPE_NAMES.get(type(value))
    return ConstantFormula(value, {"const": value} if kind is None else {"const": value, "type": kind})


def _compile_text(text: str, types: Mapping[str, Schema], location: SourceLocation | None) -> Expression:
    parts: list[str | Expression] = []
    line = _LineScanner(location)
    for piece in split_template(text):
        if isinstance(piece, str):
            for _ in range(piece.count("${")):
                line.find_next("$${")
            parts.append(piece)
            continue
        if not piece.is_closed:
            text_location = line.find_next(f"${{{piece.source}")
            hint = "write ${...}; for the characters themselves write $${"
            raise InputError("L050", "the reference is not closed", location=text_location, hint=hint)
        text_location = line.find_next(f"${{{piece.source}}}")
        expression = compile_reference(piece.source, types, _inner_location(text_location, piece.source))
        if sole_reference(text) is not None:
            return expression
        _check_text_part(expression, piece.source, text_location)
        parts.append(
            IntegerExpression(expression)
            if value_kinds(expression.schema) & {"int", "float"} == {"int"}
            else expression
        )
    expressions = [part for part in parts if not isinstance(part, str)]
    return (
        TextExpression(tuple(parts), _all_references(expressions), STR)
        if expressions
        else constant_expression("".join(map(str, parts)))
    )


class _LineScanner:
    """The line of a scalar, whose parts are searched from left to right, so that equal parts get different
    locations.
    """

    __slots__ = ("location", "offset")

    def __init__(self, location: SourceLocation | None) -> None:
        self.location = location
        self.offset = 0 if location is None else location.column - 1

    def find_next(self, part: str) -> SourceLocation | None:
        """Returns the location of the next part; that of the scalar if the part is not in its line, or is spelled
        differently.
        """
        if self.location is None or (position := self.location.text.find(part, self.offset)) < 0:
            return self.location
        self.offset = position + len(part)
        return replace(self.location, column=position + 1, width=len(part))


def _inner_location(location: SourceLocation | None, inner: str) -> SourceLocation | None:
    """Returns the location of the text between `${` and `}`, if it is known."""
    if location is None or not inner or not location.text.startswith(f"${{{inner}}}", location.column - 1):
        return location
    return replace(location, column=location.column + 2, width=len(inner))


def _check_text_part(reference: Expression, source: str, location: SourceLocation | None) -> None:
    kinds = value_kinds(reference.schema)
    if "any" in kinds or kinds <= {"str", "int", "float", "bool"}:
        return
    if "null" in kinds and kinds <= {"str", "int", "float", "bool", "null"}:
        hint = f'define the text for null: ${{{source} != null ? {source} : ""}}'
        raise InputError(
            "L057",
            f"{source} may be null ({format_type(reference.schema)}), and is part of a text",
            location=location,
            hint=hint,
        )
    hint = "read one of its fields, or let a tool write it"
    raise InputError(
        "L059",
        f"{source} is {format_type(reference.schema)}, and cannot be part of a text",
        location=location,
        hint=hint,
    )


def compile_reference(source: str, types: Mapping[str, Schema], location: SourceLocation | None = None) -> Expression:
    """Compiles one reference, without `${` and `}`. `location` is the location of its text. Raises `InputError`."""
    try:
        return _compile_reference(source, types)
    except CelSyntaxError as error:
        code = "L056" if error.too_large else "L050"
        part_location = _sub_location(location, source, error.start, error.end)
        raise InputError(
            code,
            f"not an expression: {error.reason}",
            location=part_location,
            hint=error.hint or "CEL, as in ${input.n > 3 && a.b == 'x'}",
        ) from None
    except ExpressionError as fault:
        part_location = _sub_location(location, source, fault.start, fault.end)
        raise InputError(fault.code, fault.message, location=part_location, hint=fault.hint, why=fault.why) from None


def _sub_location(location: SourceLocation | None, source: str, at: int, end: int) -> SourceLocation | None:
    if location is None or not location.text.startswith(source, location.column - 1):
        return location
    return replace(location, column=location.column + at, width=max(1, end - at))


class _SchemaKey:
    """A schema as a cache key, equal only to itself. Schemas are immutable."""

    __slots__ = ("schema",)

    def __init__(self, schema: Schema) -> None:
        self.schema = schema

    def __hash__(self) -> int:
        return id(self.schema)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SchemaKey) and self.schema is other.schema


def compile_path(template: str, types: Mapping[str, Schema]) -> PathExpression | None:
    """Compiles a template that is a plain path. Returns None for other templates, and for errors, which
    `compile_template` reports.
    """
    if (
        len(template) > MAX_PLAIN_LENGTH
        or (plain_path := parse_plain_template(template)) is None
        or (schema := types.get(plain_path.root)) is None
    ):
        return None
    if not plain_path.steps:
        return (
            None
            if MAP_MARKER in schema
            else PathExpression(plain_path.root, (), schema, plain_path.source, plain_path.references)
        )
    return _follow_path(plain_path, schema)


def _follow_path(path: PlainPath, schema: Schema) -> PathExpression | None:
    """Resolves a plain path that starts at a value of this type."""
    if not path.steps:
        return None if is_map_result(schema) else PathExpression(path.root, (), schema, path.source, path.references)
    if (end := resolve_steps(schema, path.steps)) is None:
        return None
    return PathExpression(
        path.root,
        path.steps,
        end.schema,
        path.source,
        path.references,
        end.checks_each_step,
        end.collects_values,
        end.defaults,
    )


class PathEnd(msgspec.Struct, frozen=True):
    """The type at the end of a path."""

    schema: Schema
    checks_each_step: bool
    collects_values: bool
    defaults: Mapping[int, Any] | None


def resolve_steps(schema: Schema, steps: tuple[str | int, ...]) -> PathEnd | None:
    """Resolves steps from a type on; None if a step is invalid."""
    return _resolve_steps_cached(_SchemaKey(schema), steps)


@lru_cache(maxsize=2048)
def _resolve_steps_cached(key: _SchemaKey, steps: tuple[str | int, ...]) -> PathEnd | None:
    start = CelName("a", 0, 0)
    tree: CelTree = start
    for step in steps:
        tree = CelSelect(tree, step, 0, 0) if isinstance(step, str) else CelIndex(tree, CelLiteral(step, 0, 0), 0, 0)
    checker = TypeChecker("", {start.name: key.schema})
    try:
        if is_map_result(checker.check(tree)):
            return None
    except ExpressionError:
        return None
    path_expression = _build_path(tree, checker)
    return PathEnd(
        path_expression.schema,
        path_expression.checks_each_step,
        path_expression.collects_values,
        path_expression.defaults,
    )


def _compile_reference(source: str, types: Mapping[str, Schema]) -> Expression:
    plain_path = parse_plain_path(source)
    if (
        plain_path is not None
        and plain_path.root in types
        and (path_expression := _follow_path(plain_path, types[plain_path.root])) is not None
    ):
        return path_expression
    tree = parse(source)
    checker = TypeChecker(source, types)
    schema = checker.check(tree)
    if is_map_result(schema):
        raise mapped_node_error(tree, checker.source(tree))
    if value_kinds(schema) & {"time"}:
        raise ExpressionError("L059", f"{source} is a time, and has no JSON form", tree, hint=f"write string({source})")
    if _TIME_FUNCTIONS.search(source) and _has_time(schema):
        raise ExpressionError(
            "L059",
            f"{source} has a time in it, which has no JSON form",
            tree,
            hint="write string(...) around each time",
        )
    return _build_expression(tree, checker)


_TIME_FUNCTIONS = re.compile(r"\b(timestamp|duration)\b")


def _has_time(part: Any) -> bool:
    """Whether a type contains a time."""
    if isinstance(part, Mapping):
        return part.get("type") == TIME["type"] or any(map(_has_time, part.values()))
    return isinstance(part, list) and any(map(_has_time, part))


def _build_expression(tree: CelTree, checker: TypeChecker) -> Expression:
    if isinstance(tree, CelLiteral):
        return constant_expression(tree.value)
    if path_of(tree) is not None:
        return _build_path(tree, checker)
    if is_hoistable(tree, checker) and isinstance(tree, CelMacro):
        return _build_comprehension(tree, checker)
    _check_constants(tree, checker)
    return _build_cel(tree, checker)


def _build_path(tree: CelTree, checker: TypeChecker) -> PathExpression:
    steps: list[str | int] = []
    owners: list[Schema] = []
    current_tree = tree
    while isinstance(current_tree, CelSelect | CelIndex):
        step = (
            current_tree.name
            if isinstance(current_tree, CelSelect)
            else current_tree.key.value
            if isinstance(current_tree.key, CelLiteral)
            else 0
        )
        steps.insert(0, step if isinstance(step, str | int) else 0)
        current_tree = current_tree.operand
        owners.insert(0, checker.schemas[id(current_tree)])
    root = current_tree.name if isinstance(current_tree, CelName) else ""
    defaults = {
        number: entry
        for number, (owner, step) in enumerate(zip(owners, steps, strict=True))
        for entry in _field_default(owner, step)
    }
    return PathExpression(
        root,
        tuple(steps),
        checker.schemas[id(tree)],
        checker.source(tree),
        frozenset({root}) if root in checker.types else frozenset(),
        checks_each_step=any("any" in value_kinds(owner) for owner in owners),
        collects_values=bool(owners) and is_map_result(owners[0]),
        defaults=defaults or None,
    )


def _field_default(owner: Schema, step: str | int) -> list[Any]:
    parts = union_members(owner)
    entry = parts[0].get("properties", {}).get(step) if len(parts) == 1 and isinstance(step, str) else None
    return [entry["default"]] if isinstance(entry, dict) and "default" in entry else []


def _build_comprehension(tree: CelMacro, checker: TypeChecker) -> Expression:
    """Builds a macro that runs in Python. Its parts are expressions, the range first."""
    over = _build_expression(tree.items, checker)
    bodies = [_build_expression(body, checker) for body in tree.bodies]
    test = bodies[0] if tree.kind == "filter" or len(bodies) == 2 else None
    body = None if tree.kind == "filter" else bodies[-1]
    references = _all_references([over, *bodies]) - {tree.variable.name}
    return Comprehension(
        checker.source(tree), over, tree.variable.name, test, body, checker.schemas[id(tree)], references
    )


def _build_cel(tree: CelTree, checker: TypeChecker) -> Expression:
    formula = _generate_cel(tree, checker, hoist=True)
    if any(isinstance(feed.source, Comprehension) for feed in formula.variables):
        formula = replace(formula, unhoisted=_generate_cel(tree, checker, hoist=False))
    if not formula.variables:
        return constant_expression(formula.program.run({}, formula.source))
    return formula


def _generate_cel(tree: CelTree, checker: TypeChecker, *, hoist: bool) -> CelExpression:
    writer = CelWriter(checker, hoist)
    text = writer.write(tree)
    program = cel.compile_program(text, tuple(slot.type for slot in writer.variables))
    if program.compile_error:
        code = "L056" if "recursion" in program.compile_error else "L053"
        hint = "compute a part in a node of its own" if code == "L056" else "look at the types of its parts"
        raise ExpressionError(code, f"{checker.source(tree)}: {program.compile_error}", tree, hint=hint)
    feeds = tuple(
        VariableBinding(
            f"v{number}",
            _build_expression(slot.tree, checker),
            make_converter(slot.schema) if slot.type != "string" else None,
        )
        for number, slot in enumerate(writer.variables)
    )
    schema = checker.schemas[id(tree)]
    if schema == ANY:
        schema = program.schema
    return CelExpression(checker.source(tree), program, feeds, schema, _all_references(feed.source for feed in feeds))


def _check_constants(tree: CelTree, checker: TypeChecker) -> None:
    """Refuses parts that always fail: constant errors, a division by zero, a pattern that RE2 does not accept."""
    if _is_constant(tree, frozenset()):
        if not isinstance(tree, CelLiteral | CelList | CelMap):
            _evaluate_constant(tree, checker)
        return
    match tree:
        case CelBinary("/" | "%", _, right) if (
            _is_constant(right, frozenset()) and _constant_value(right, checker) == 0
        ):
            raise ExpressionError(
                "L055", f"{checker.source(tree)} divides by zero", tree, hint="divide by something else"
            )
        case CelCall("matches", of, args):
            pattern = args[-1]
            if _is_constant(pattern, frozenset()):
                _evaluate_constant(
                    CelCall("matches", None, (CelLiteral("", 0, 0), pattern), pattern.start, pattern.end), checker
                )
            for part in (*args[:-1], *([of] if of is not None else [])):
                _check_constants(part, checker)
        case _:
            for part in children(tree):
                _check_constants(part, checker)


def _is_constant(tree: CelTree, bound: frozenset[str]) -> bool:
    match tree:
        case CelName(name):
            return name in bound
        case CelMacro(_, of, variable, bodies):
            return _is_constant(of, bound) and all(_is_constant(body, bound | {variable.name}) for body in bodies)
        case _:
            return all(_is_constant(part, bound) for part in children(tree))


def _constant_value(tree: CelTree, checker: TypeChecker) -> Any:
    return tree.value if isinstance(tree, CelLiteral) else _evaluate_constant(tree, checker)


def _evaluate_constant(tree: CelTree, checker: TypeChecker) -> Any:
    """Evaluates a constant tree. Raises `ExpressionError` if that fails."""
    alone = TypeChecker(checker.text, {})
    alone.check(tree)
    program = cel.compile_program(CelWriter(alone).write(tree), ())
    if program.compile_error:
        raise ExpressionError("L053", program.compile_error, tree, hint="look at the types of its parts")
    try:
        return program.run({}, checker.source(tree))
    except OrchestraError as error:
        reason = error.message.partition("}: ")[2] or error.message
        raise ExpressionError(
            "L055", f"{checker.source(tree)} always fails: {reason}", tree, hint="write what you mean, or leave it out"
        ) from None


_PRECEDENCE = {"==": 4, "!=": 4, "<": 4, "<=": 4, ">": 4, ">=": 4, "in": 4, "+": 5, "-": 5, "*": 6, "/": 6, "%": 6}


_ATOM_PRECEDENCE = 9


class CelVariable(msgspec.Struct, frozen=True):
    """A variable of CEL, `v0`, `v1`, ...: a tree that is evaluated beforehand, and its declared type."""

    tree: CelTree
    schema: Schema
    type: str


@dataclass
class CelWriter:
    """Writes one checked tree. With `hoist`, the outermost `map` and `filter` are variables too, since CEL needs
    quadratic time for them.
    """

    checker: TypeChecker
    hoist: bool = False
    variables: list[CelVariable] = field(default_factory=list)
    _variable_names: dict[Any, str] = field(default_factory=dict)
    _macro_depth: int = 0

    def write(self, tree: CelTree) -> str:
        """Returns the text of the tree over its variables."""
        return self._write_tree(tree)[0]

    def _write_part(self, tree: CelTree, precedence: int) -> str:
        text, own_precedence = self._write_tree(tree)
        return text if own_precedence >= precedence else f"({text})"

    def _schema(self, tree: CelTree) -> Schema:
        return self.checker.schemas[id(tree)]

    def _write_tree(self, tree: CelTree) -> tuple[str, int]:
        match tree:
            case CelLiteral(value):
                return to_cel_literal(value), _ATOM_PRECEDENCE if not isinstance(
                    value, int | float
                ) or value >= 0 else 7
            case CelName() | CelSelect() | CelIndex():
                return self._write_path(tree), _ATOM_PRECEDENCE
            case CelCall(name, of, args):
                return self._write_call(name, of, args), _ATOM_PRECEDENCE
            case CelMacro():
                return self._write_macro(tree), _ATOM_PRECEDENCE
            case CelUnary(op, of):
                return f"{op}{self._write_part(of, _ATOM_PRECEDENCE)}", 7
            case CelBinary(op, left, right):
                rank = _PRECEDENCE[op]
                return f"{self._write_part(left, rank)} {op} {self._write_part(right, rank + 1)}", rank
            case CelLogic(op, items):
                rank = 2 if op == "||" else 3
                return f" {op} ".join(self._write_part(item, rank + 1) for item in items), rank
            case CelConditional(test, then, otherwise):
                first, second = self._write_uniform((then, otherwise))
                return f"{self._write_part(test, 2)} ? {first} : {second}", 1
            case CelList(items):
                return f"[{', '.join(self._write_uniform(items, mixed=True))}]", _ATOM_PRECEDENCE
            case CelMap(pairs):
                values = self._write_uniform(tuple(value for _, value in pairs), mixed=True)
                keys = [self._write_part(key, 1) for key, _ in pairs]
                return "{" + ", ".join(
                    f"{key}: {value}" for key, value in zip(keys, values, strict=True)
                ) + "}", _ATOM_PRECEDENCE

    def _write_uniform(self, trees: tuple[CelTree, ...], *, mixed: bool = False) -> list[str]:
        """Writes values of one place with one type: integers become floats next to floats, and other mixtures become
        `dyn`.
        """
        kinds: set[str] = set()
        for tree in trees:
            kinds |= value_kinds(self._schema(tree))
        texts = []
        for tree in trees:
            text = self._write_part(tree, 2)
            texts.append(f"double({text})" if "float" in kinds and value_kinds(self._schema(tree)) == {"int"} else text)
        if mixed or len({self._declared_type(tree) for tree in trees}) == 1:
            return texts
        if kinds == {"float"} or kinds == {"float", "int"}:
            return texts
        return [f"dyn({text})" for text in texts]

    def _declared_type(self, tree: CelTree) -> str:
        return cel_type(self._schema(tree))

    def _write_path(self, tree: CelTree) -> str:
        steps: list[CelSelect | CelIndex] = []
        current_tree: CelTree = tree
        while isinstance(current_tree, CelSelect | CelIndex):
            steps.append(current_tree)
            current_tree = current_tree.operand
        if not isinstance(current_tree, CelName):
            text = self._write_part(current_tree, _ATOM_PRECEDENCE)
        elif current_tree.name in self.checker.types or not self._macro_depth:
            text = self._path_variable(current_tree, steps)
        else:
            text = f"x_{current_tree.name}"
        for step in reversed(steps):
            text += self._write_step(step)
        return text

    def _write_step(self, step: CelSelect | CelIndex) -> str:
        match step:
            case CelSelect(_, name):
                return f'["{name}"]' if name in KEYWORDS else f".{name}"
            case CelIndex(_, key):
                return f"[{self._write_part(key, 1)}]"

    def _path_variable(self, root: CelName, steps: list[CelSelect | CelIndex]) -> str:
        """Returns the variable of the longest prefix of a path that cannot fail. The remaining steps stay in
        `steps`.
        """
        current_root: CelTree = root
        while (
            steps
            and id(current_root) not in self.checker.narrowed
            and _is_required_field(self._schema(current_root), steps[-1])
        ):
            current_root = steps.pop()
        return self._variable_for(current_root, self.checker.source(current_root))

    def _variable_for(self, tree: CelTree, key: Any) -> str:
        schema = self._schema(tree)
        kind = (
            cel_type(schema) if "null" not in value_kinds(schema) and id(tree) not in self.checker.narrowed else "dyn"
        )
        if (key, kind) not in self._variable_names:
            self._variable_names[key, kind] = f"v{len(self.variables)}"
            self.variables.append(CelVariable(tree, schema, kind))
        return self._variable_names[key, kind]

    def _write_call(self, name: str, of: CelTree | None, args: tuple[CelTree, ...]) -> str:
        if name == "has" and isinstance(args[0], CelSelect):
            return f"has({self._write_part(args[0].operand, _ATOM_PRECEDENCE)}.{args[0].name})"
        inner = ", ".join(self._write_part(arg, 1) for arg in args)
        return f"{name}({inner})" if of is None else f"{self._write_part(of, _ATOM_PRECEDENCE)}.{name}({inner})"

    def _write_macro(self, tree: CelMacro) -> str:
        if self.hoist and not self._macro_depth and is_hoistable(tree, self.checker):
            return self._variable_for(tree, id(tree))
        over = self._write_part(tree.items, _ATOM_PRECEDENCE)
        self._macro_depth += 1
        bodies = ", ".join(self._write_part(body, 1) for body in tree.bodies)
        self._macro_depth -= 1
        return f"{over}.{tree.kind}(x_{tree.variable.name}, {bodies})"


def is_hoistable(tree: CelTree, checker: TypeChecker) -> bool:
    """Whether a tree is a `map` or `filter` of a list that can run element by element."""
    return (
        isinstance(tree, CelMacro)
        and tree.kind in ("map", "filter")
        and value_kinds(checker.schemas[id(tree.items)]) == {"list"}
        and not any(_has_macro(body) for body in tree.bodies)
    )


def _has_macro(tree: CelTree) -> bool:
    return isinstance(tree, CelMacro) or any(_has_macro(part) for part in children(tree))


def _is_required_field(schema: Schema, step: CelSelect | CelIndex) -> bool:
    """Whether a step to a field always succeeds."""
    match step:
        case CelSelect(_, name) | CelIndex(_, CelLiteral(str(name))):
            return all(
                name in part.get("required", ()) and name in part.get("properties", {})
                for part in union_members(schema)
            )
        case _:
            return False
