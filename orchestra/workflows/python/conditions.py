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
    shapes = {part for guard in known for part in _guard_conditions(guard)}
    return all(part in shapes for guard in guards for part in _guard_conditions(guard))


def _guard_conditions(guard: NodeGuard) -> list[object]:
    """Returns the conditions of a guard. `turn` and `previous` belong to their loop."""
    loop_reads = frozenset(id(variable) for variable in guard.reads if variable.name in ("turn", "previous"))
    return [(part, loop_reads) for part in _condition_shapes(guard.cel)]


@lru_cache(maxsize=4096)
def _condition_shapes(cel: str) -> tuple[object, ...]:
    conditions = parse_conditions([cel])
    return (cel,) if conditions is None else tuple(without_positions(condition) for condition in conditions)


def always_present(node: TracedNode, wanted: NodePresence = NodePresence.ALWAYS) -> bool:
    """Whether a node has a value with the wanted certainty under its guards, unless a node fails.

    Neither it nor anything it needs may be skipped or withheld. The nodes that its condition reads only need to be
    present if persons answer, since without the condition neither branch runs.
    """
    line, visited = [(node, wanted)], {(node, wanted)}
    while line:
        current_node, least = line.pop()
        if current_node.proven_presence >= least:
            continue
        is_withheld = current_node.presence < least or (
            "checks" in current_node.fields and "fallback" not in current_node.fields
        )
        if current_node.presence is NodePresence.OPTIONAL or (is_withheld and "each" not in current_node.fields):
            return False
        for traced_node, is_required in _required_nodes(current_node):
            if not guards_hold(traced_node.guards, current_node.guards):
                return False
            if (new := (traced_node, NodePresence.IF_ANSWERED if is_required else least)) not in visited:
                visited.add(new)
                line.append(new)
    for current_node, least in visited:
        current_node.proven_presence = max(current_node.proven_presence, least)
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
    frozen_node = node.freeze()
    condition_names = referenced_names(frozen_node.when)
    return [
        (traced_node, traced_node.name in condition_names)
        for traced_node in _find_nodes(node_references(frozen_node).hard, node.scope)
    ]


def _find_nodes(names: Iterable[str], scope: TraceScope) -> list[TracedNode]:
    chain = [*scope.chain()]
    traced_nodes = (
        next((trace_scope.nodes_by_name[name] for trace_scope in chain if name in trace_scope.nodes_by_name), None)
        for name in sorted(names)
    )
    return [traced_node for traced_node in traced_nodes if traced_node is not None]


T = TypeVar("T")


U = TypeVar("U")


def all_of(first: bool, /, *more: bool) -> bool:
    """Whether all conditions hold."""
    return _logic("&&", first, more)


def any_of(first: bool, /, *more: bool) -> bool:
    """Whether at least one condition holds."""
    return _logic("||", first, more)


def _logic(op: str, first: Any, rest_operands: Sequence[Any]) -> bool:
    if not contains_placeholder([first, *rest_operands]):
        return all((first, *rest_operands)) if op == "&&" else any((first, *rest_operands))
    conditions = [
        require_boolean(lift(operand), "all_of" if op == "&&" else "any_of") for operand in (first, *rest_operands)
    ]
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
    expression, default_expression = lift(value), lift(default)
    if not expression.is_unknown and not value_kinds(expression.schema) & {"null", "any"}:
        raise trace_error(
            "W008",
            f"{display_text(expression)} is {python_type(expression.schema)}: it is never None",
            hint="leave or_else() out",
        )
    expression, default_expression = _unify_numbers(expression, default_expression)
    result = build_expression(
        "{0} != null ? {0} : {1}", PRECEDENCE["?"], expression, default_expression, bracket=PRECEDENCE["!="] + 1
    )
    return cast("T | U", Placeholder(result))


def contains(items: Sequence[T], item: T, /) -> bool:
    """Whether a list contains an element, or a text a substring."""
    if not contains_placeholder([items, item]):
        return item in items
    expression, item_expression = lift(items), lift(item)
    if misreading := misread_operand("in", item_expression.schema, expression.schema):
        raise trace_error(
            "W008",
            f"contains() would take {misreading} as a text",
            hint="do it in a @tool(effect='pure')",
            why=TEXT_FORM_REASON,
        )
    if not expression.is_unknown and value_kinds(expression.schema) == {"str"}:
        return cast(
            bool, Placeholder(build_expression("{0}.contains({1})", ATOM_PRECEDENCE, expression, item_expression))
        )
    if not expression.is_unknown and not value_kinds(expression.schema) <= {"list", "map", "any"}:
        raise trace_error(
            "W008",
            f"{display_text(expression)} is {python_type(expression.schema)}, and no list",
            hint="contains(items, item)",
        )
    result = build_expression("{1} in {0}", PRECEDENCE["in"], expression, item_expression, bracket=PRECEDENCE["in"] + 1)
    return cast(bool, Placeholder(result))


def choose(condition: bool, then: T, otherwise: U, /) -> T | U:
    """Returns one of two values. Both are computed first; to choose between calls, use `first_of(when(...), ...)`."""
    if not contains_placeholder(condition):
        return then if condition else otherwise
    for value in (then, otherwise):
        reject_effects(value, "choose", "first_of(when(condition, lambda: ...), otherwise=lambda: ...)")
    first, second = _unify_numbers(lift(then), lift(otherwise))
    result = build_expression(
        "{0} ? {1} : {2}",
        PRECEDENCE["?"],
        require_boolean(lift(condition), "choose"),
        first,
        second,
        bracket=PRECEDENCE["?"] + 1,
    )
    return cast("T | U", Placeholder(result))


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
    if (effect := _effect_in_expression(given)) is not None:
        effect_name, by, kind = effect
        place = f"{word}={by}(...)" if not hint else f"{by}(...) in {word}"
        raise trace_error(
            "W029",
            f"{effect_name} has effects ({kind}), and {place} always runs it",
            hint=hint or f"{word}=lambda: {by}(...)",
            why="arguments are evaluated before the call: it is not a branch, but a value that is always computed",
        )
    return given


def _effect_in_expression(value: Any) -> tuple[str, str, str] | None:
    """Returns the unconditional call with effects within the present expression that a value depends on.

    The result is the name of the step, the called function (which may be a user function that calls it), and the
    effect.
    """
    scope, location = current_scope(), user_location()
    if scope is None or not (line := [*_read_nodes(value)]):
        return None
    outer, node_guards, visited = position_of(location), scope.active_guards, {*line}
    while line:
        node = line.pop()
        way = _call_path(node, location, outer) if node.guards == node_guards else None
        if way is None:
            continue
        if (kind := _node_effect(node, scope)) != "pure":
            callee = node.fields.get("tool") or node.fields.get("call")
            callee_name = callee if isinstance(callee, str) else node.name
            by = way[-1].code.co_name if way else callee_name
            return callee_name, by if by.isidentifier() else callee_name, kind
        traced_nodes = [traced_node for traced_node in nodes_read_by(node.fields, scope) if traced_node not in visited]
        visited.update(traced_nodes)
        line += traced_nodes
    return None


def _call_path(node: TracedNode, code_location: CodeLocation, outer: Position) -> tuple[CodeLocation, ...] | None:
    """Returns the user functions through which a node is called in an expression, innermost first; None if it is not
    called there.
    """
    for depth, location in enumerate(node.locations):
        if location.code is code_location.code and encloses(outer, position_of(location)):
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
    step_effects = (_step_effect(step) for step in steps[-1:])
    return next(
        (
            kind
            for kind in (*step_effects, *(_node_effect(body_node, scope) for body_node in node.body_nodes))
            if kind != "pure"
        ),
        "pure",
    )


def _step_effect(step: Any) -> str:
    """Returns the effect of a step. For a workflow function it is that of its calls; unknown for files and functions
    being traced.
    """
    pending_steps, visited = [step], set[int]()
    while pending_steps:
        current_step = pending_steps.pop()
        if current_step.kind != "call":
            if (kind := str(getattr(current_step, "effect", "pure"))) != "pure":
                return kind
        elif (
            id(current_step) not in visited
            and current_step.function is not None
            and not is_being_traced(current_step.function)
        ):
            visited.add(id(current_step))
            pending_steps += current_step.steps
    return "pure"


def _read_nodes(value: Any) -> Iterator[TracedNode]:
    """Returns the nodes that a value reads, including those of its elements."""
    if type(value) in (Placeholder, Maybe):
        yield from (variable for variable in value._expression.reads if isinstance(variable, TracedNode))
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _read_nodes(inner)


def require_boolean(expression: PendingExpression, word: str) -> PendingExpression:
    """Returns an expression that is a bool. Raises `InputError` W008 for another type."""
    if not expression.is_unknown and not value_kinds(expression.schema) <= {"bool", "any"}:
        text = display_text(expression)
        kinds = value_kinds(expression.schema)
        rest = f"has_value({text})" if "null" in kinds else f"{text} == ..."
        hint = f"or_else({text}, False)" if kinds == {"bool", "null"} else rest
        raise trace_error(
            "W008", f"{word} takes a condition, and {text} is {python_type(expression.schema)}", hint=hint
        )
    return expression
