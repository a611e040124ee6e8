"""Conditions and small computations over values that are not known yet, and the certainty that values exist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from functools import lru_cache
from typing import Any, TypeVar, cast

from orchestra.workflows.compile.ordering import node_references, referenced_names
from orchestra.workflows.expressions.condition_analysis import parse_conditions
from orchestra.workflows.expressions.type_checker import TEXT_FORM_REASON, misread_operand, value_kinds
from orchestra.workflows.python.errors import CodeLocation, user_location
from orchestra.workflows.python.pending import (
    ATOM_PRECEDENCE,
    PRECEDENCE,
    PendingExpression,
    build_expression,
    display_text,
    to_float,
)
from orchestra.workflows.python.placeholders import Maybe, Placeholder, contains_placeholder, lift
from orchestra.workflows.python.printer import python_type, without_positions
from orchestra.workflows.python.scopes import (
    NodeGuard,
    NodePresence,
    TracedNode,
    TraceScope,
    current_scope,
    is_being_traced,
    position_of,
    trace_error,
)
from orchestra.workflows.python.suggestions import Position, encloses


def guards_hold(guards: Iterable[NodeGuard], known: Iterable[NodeGuard]) -> bool:
    """Whether some guards hold under the known guards, compared condition by condition."""
    there = {part for guard in known for part in _guard_conditions(guard)}
    return all(part in there for guard in guards for part in _guard_conditions(guard))


def _guard_conditions(guard: NodeGuard) -> list[object]:
    """Returns the conditions of a guard. `turn` and `previous` belong to their loop."""
    own = frozenset(id(read) for read in guard.reads if read.name in ("turn", "previous"))
    return [(part, own) for part in _condition_shapes(guard.cel)]


@lru_cache(maxsize=4096)
def _condition_shapes(cel: str) -> tuple[object, ...]:
    found = parse_conditions([cel])
    return (cel,) if found is None else tuple(without_positions(one) for one in found)


def always_present(node: TracedNode, wanted: NodePresence = NodePresence.ALWAYS) -> bool:
    """Whether a node has a value with the wanted certainty under its guards, unless a node fails.

    Neither it nor anything it needs may be skipped or withheld. The nodes that its condition reads only need to be
    present if persons answer, since without the condition neither branch runs.
    """
    line, seen = [(node, wanted)], {(node, wanted)}
    while line:
        one, least = line.pop()
        if one.proven_presence >= least:
            continue
        withheld = one.presence < least or ("checks" in one.fields and "fallback" not in one.fields)
        if one.presence is NodePresence.OPTIONAL or (withheld and "each" not in one.fields):
            return False
        for read, asked in _required_nodes(one):
            if not guards_hold(read.guards, one.guards):
                return False
            if (new := (read, NodePresence.IF_ANSWERED if asked else least)) not in seen:
                seen.add(new)
                line.append(new)
    for one, least in seen:
        one.proven_presence = max(one.proven_presence, least)
    return True


def presence_of(nodes: Iterable[TracedNode], guards: tuple[NodeGuard, ...]) -> NodePresence:
    """Returns the certainty that these nodes have values under the guards."""
    nodes = [*nodes]
    if not all(guards_hold(node.guards, guards) and always_present(node, NodePresence.IF_ANSWERED) for node in nodes):
        return NodePresence.UNCERTAIN
    return NodePresence.ALWAYS if all(always_present(node) for node in nodes) else NodePresence.IF_ANSWERED


def nodes_read_by(template: object, scope: TraceScope) -> list[TracedNode]:
    """Returns the nodes that a template names, in this body or an enclosing one."""
    return _find_nodes(referenced_names(template), scope)


def _required_nodes(node: TracedNode) -> list[tuple[TracedNode, bool]]:
    """Returns the nodes whose values a node requires, and whether its condition reads them."""
    frozen = node.freeze()
    asked = referenced_names(frozen.when)
    return [(read, read.name in asked) for read in _find_nodes(node_references(frozen).hard, node.scope)]


def _find_nodes(names: Iterable[str], scope: TraceScope) -> list[TracedNode]:
    chain = [*scope.chain()]
    found = (
        next((one.nodes_by_name[name] for one in chain if name in one.nodes_by_name), None) for name in sorted(names)
    )
    return [one for one in found if one is not None]


T = TypeVar("T")


U = TypeVar("U")


def all_of(first: bool, /, *more: bool) -> bool:
    """Whether all conditions hold."""
    return _logic("&&", first, more)


def any_of(first: bool, /, *more: bool) -> bool:
    """Whether at least one condition holds."""
    return _logic("||", first, more)


def _logic(op: str, first: Any, more: Sequence[Any]) -> bool:
    if not contains_placeholder([first, *more]):
        return all((first, *more)) if op == "&&" else any((first, *more))
    conditions = [require_boolean(lift(one), "all_of" if op == "&&" else "any_of") for one in (first, *more)]
    if len(conditions) == 1:
        return cast(bool, Placeholder(conditions[0]))
    pattern = f" {op} ".join(f"{{{index}}}" for index in range(len(conditions)))
    return cast(bool, Placeholder(build_expression(pattern, PRECEDENCE[op], *conditions, bracket=PRECEDENCE[op] + 1)))


def not_(condition: bool, /) -> bool:
    """Whether a condition does not hold."""
    if not contains_placeholder(condition):
        return not condition
    return cast(
        bool,
        Placeholder(
            build_expression("!{0}", PRECEDENCE["!"], require_boolean(lift(condition), "not_"), bracket=PRECEDENCE["!"])
        ),
    )


def length(items: Sized, /) -> int:
    """Returns the number of elements of a list, or of characters of a text."""
    if not contains_placeholder(items):
        return len(items)
    expression = lift(items)
    if not expression.is_unknown and not value_kinds(expression.schema) <= {"list", "map", "str"}:
        hint = (
            f"or_else({display_text(expression)}, ...) gives a default for None"
            if "null" in value_kinds(expression.schema)
            else ""
        )
        raise trace_error(
            "W008", f"{display_text(expression)} is {python_type(expression.schema)}: it has no length", hint=hint
        )
    return cast(int, Placeholder(build_expression("size({0})", ATOM_PRECEDENCE, expression, bracket=0)))


def has_value(value: object, /) -> bool:
    """Whether a value is not None."""
    if not contains_placeholder(value):
        return value is not None
    expression = lift(value)
    if not expression.is_unknown and not value_kinds(expression.schema) & {"null", "any"}:
        raise trace_error(
            "W008",
            f"{display_text(expression)} is {python_type(expression.schema)}: it is never None",
            hint="leave has_value() out",
        )
    return cast(
        bool, Placeholder(build_expression("{0} != null", PRECEDENCE["!="], expression, bracket=PRECEDENCE["!="] + 1))
    )


def or_else(value: T | None, default: U, /) -> T | U:
    """Returns a value, or the default if it is None."""
    if not contains_placeholder([value, default]):
        return default if value is None else value
    expression, other = lift(value), lift(default)
    if not expression.is_unknown and not value_kinds(expression.schema) & {"null", "any"}:
        raise trace_error(
            "W008",
            f"{display_text(expression)} is {python_type(expression.schema)}: it is never None",
            hint="leave or_else() out",
        )
    expression, other = _unify_numbers(expression, other)
    made = build_expression("{0} != null ? {0} : {1}", PRECEDENCE["?"], expression, other, bracket=PRECEDENCE["!="] + 1)
    return cast("T | U", Placeholder(made))


def contains(items: Sequence[T], item: T, /) -> bool:
    """Whether a list contains an element, or a text a substring."""
    if not contains_placeholder([items, item]):
        return item in items
    expression, one = lift(items), lift(item)
    if what := misread_operand("in", one.schema, expression.schema):
        raise trace_error(
            "W008",
            f"contains() would take {what} as a text",
            hint="do it in a @tool(effect='pure')",
            why=TEXT_FORM_REASON,
        )
    if not expression.is_unknown and value_kinds(expression.schema) == {"str"}:
        return cast(bool, Placeholder(build_expression("{0}.contains({1})", ATOM_PRECEDENCE, expression, one)))
    if not expression.is_unknown and not value_kinds(expression.schema) <= {"list", "map", "any"}:
        raise trace_error(
            "W008",
            f"{display_text(expression)} is {python_type(expression.schema)}, and no list",
            hint="contains(items, item)",
        )
    made = build_expression("{1} in {0}", PRECEDENCE["in"], expression, one, bracket=PRECEDENCE["in"] + 1)
    return cast(bool, Placeholder(made))


def choose(condition: bool, then: T, otherwise: U, /) -> T | U:
    """Returns one of two values. Both are computed first; to choose between calls, use `first_of(when(...), ...)`."""
    if not contains_placeholder(condition):
        return then if condition else otherwise
    for value in (then, otherwise):
        reject_effects(value, "choose", "first_of(when(condition, lambda: ...), otherwise=lambda: ...)")
    first, second = _unify_numbers(lift(then), lift(otherwise))
    made = build_expression(
        "{0} ? {1} : {2}",
        PRECEDENCE["?"],
        require_boolean(lift(condition), "choose"),
        first,
        second,
        bracket=PRECEDENCE["?"] + 1,
    )
    return cast("T | U", Placeholder(made))


def _unify_numbers(first: PendingExpression, second: PendingExpression) -> tuple[PendingExpression, PendingExpression]:
    """Converts two numbers to floats if one of them is a float."""
    if value_kinds(first.schema) | value_kinds(second.schema) == {"int", "float"}:
        return to_float(first, value_kinds(first.schema)), to_float(second, value_kinds(second.schema))
    return first, second


def as_text(value: str | int | float | bool, /) -> str:
    """Converts a number, a bool or a text to text."""
    if not contains_placeholder(value):
        return str(value).lower() if isinstance(value, bool) else str(value)
    expression = lift(value)
    if not expression.is_unknown and not value_kinds(expression.schema) <= {"str", "int", "float", "bool"}:
        text = display_text(expression)
        hint = (
            f"or_else({text}, '')"
            if "null" in value_kinds(expression.schema)
            else f"a field of it; or a @tool(effect='pure') that writes {text}"
        )
        raise trace_error("W008", f"{text} is {python_type(expression.schema)}: it has no text of its own", hint=hint)
    return cast(str, Placeholder(build_expression("string({0})", ATOM_PRECEDENCE, expression, bracket=0)))


def reject_effects(given: Any, word: str, hint: str = "") -> Any:
    """Returns an argument that was evaluated already. Raises `InputError` W029 for a call with effects in it."""
    if (made := _effect_in_expression(given)) is not None:
        called, by, kind = made
        place = f"{word}={by}(...)" if not hint else f"{by}(...) in {word}"
        raise trace_error(
            "W029",
            f"{called} has effects ({kind}), and {place} always runs it",
            hint=hint or f"{word}=lambda: {by}(...)",
            why="arguments are evaluated before the call: it is not a branch, but a value that is always computed",
        )
    return given


def _effect_in_expression(given: Any) -> tuple[str, str, str] | None:
    """Returns the unconditional call with effects within the present expression that a value depends on.

    The result is the name of the step, the called function (which may be a user function that calls it), and the
    effect.
    """
    scope, here = current_scope(), user_location()
    if scope is None or not (line := [*_read_nodes(given)]):
        return None
    outer, standing, seen = position_of(here), scope.active_guards, {*line}
    while line:
        node = line.pop()
        way = _call_path(node, here, outer) if node.guards == standing else None
        if way is None:
            continue
        if (kind := _node_effect(node, scope)) != "pure":
            callee = node.fields.get("tool") or node.fields.get("call")
            called = callee if isinstance(callee, str) else node.name
            by = way[-1].code.co_name if way else called
            return called, by if by.isidentifier() else called, kind
        more = [read for read in nodes_read_by(node.fields, scope) if read not in seen]
        seen.update(more)
        line += more
    return None


def _call_path(node: TracedNode, here: CodeLocation, outer: Position) -> tuple[CodeLocation, ...] | None:
    """Returns the user functions through which a node is called in an expression, innermost first; None if it is not
    called there.
    """
    for depth, location in enumerate(node.locations):
        if location.code is here.code and encloses(outer, position_of(location)):
            return node.locations[:depth]
    return None


def _node_effect(node: TracedNode, scope: TraceScope) -> str:
    """Returns the effect of a node: of its callee, of its body, or of the function of a workflow that it calls."""
    if node.effect != "pure":
        return node.effect
    name = node.fields.get("call")
    steps = (
        [step for step in scope.root.steps if step.kind == "call" and step.name == name]
        if isinstance(name, str)
        else []
    )
    found = (_step_effect(step) for step in steps[-1:])
    return next(
        (kind for kind in (*found, *(_node_effect(one, scope) for one in node.body_nodes)) if kind != "pure"), "pure"
    )


def _step_effect(step: Any) -> str:
    """Returns the effect of a step. For a workflow function it is that of its calls; unknown for files and functions
    being traced.
    """
    waiting, seen = [step], set[int]()
    while waiting:
        one = waiting.pop()
        if one.kind != "call":
            if (kind := str(getattr(one, "effect", "pure"))) != "pure":
                return kind
        elif id(one) not in seen and one.function is not None and not is_being_traced(one.function):
            seen.add(id(one))
            waiting += one.steps
    return "pure"


def _read_nodes(given: Any) -> Iterator[TracedNode]:
    """Returns the nodes that a value reads, including those of its elements."""
    if type(given) in (Placeholder, Maybe):
        yield from (read for read in given._expression.reads if isinstance(read, TracedNode))
    elif isinstance(given, Mapping | list | tuple):
        for inner in given.values() if isinstance(given, Mapping) else given:
            yield from _read_nodes(inner)


def require_boolean(expression: PendingExpression, word: str) -> PendingExpression:
    """Returns an expression that is a bool. Raises `InputError` W008 for another type."""
    if not expression.is_unknown and not value_kinds(expression.schema) <= {"bool", "any"}:
        text = display_text(expression)
        found = value_kinds(expression.schema)
        rest = f"has_value({text})" if "null" in found else f"{text} == ..."
        hint = f"or_else({text}, False)" if found == {"bool", "null"} else rest
        raise trace_error(
            "W008", f"{word} takes a condition, and {text} is {python_type(expression.schema)}", hint=hint
        )
    return expression
