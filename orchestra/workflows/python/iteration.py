"""`map_`, `filter_`, `values` and `loop`: bodies that run for each element of a list, or until a condition holds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, cast, overload

from typing_extensions import TypeVar

from orchestra.schema.types import Schema, element_type, nullable
from orchestra.workflows.expressions.type_checker import value_kinds
from orchestra.workflows.model import CallNode, LoopBlock, LoopNode, NodeBlock
from orchestra.workflows.python import errors
from orchestra.workflows.python.conditions import nodes_read_by, presence_of, require_boolean
from orchestra.workflows.python.pending import (
    ATOM_PRECEDENCE,
    UNKNOWN_TYPE,
    PendingExpression,
    combine,
    display_text,
    infer_type,
    node_value,
    type_mismatch,
)
from orchestra.workflows.python.placeholders import (
    Maybe,
    Placeholder,
    contains_placeholder,
    lift,
    missing_error,
    peek,
    rename_to_variable,
    template_with_type,
)
from orchestra.workflows.python.printer import python_type
from orchestra.workflows.python.scopes import (
    TracedNode,
    TraceScope,
    Variable,
    body_effect,
    enter_scope,
    require_scope,
    return_location,
    trace,
    trace_error,
)

T = TypeVar("T")


U = TypeVar("U")


def map_(
    body: Callable[[T], U],
    items: Sequence[T],
    /,
    *,
    limit: int | None = None,
    concurrency: int | None = None,
    at_least: int | Literal["all"] | None = None,
) -> list[U]:
    """Returns what a body gives for each element. Elements run in parallel; the order is kept.

    A body with one call is a node under `each`; with several calls a block; without calls an expression. A failed
    element is left out (`Result.left_out` lists it). If elements may be withheld or skipped, the result is a
    `list[Maybe[U]]`, and `values` returns the elements that exist.

    Args:
        body: The function of one element.
        items: The list.
        limit: The maximum number of elements, at most 10,000.
        concurrency: How many elements run at once.
        at_least: `"all"`, or the number of elements that must have a value. Once that is impossible the list fails
        (E034), and its
            running elements are cancelled.

    Raises:
        InputError: W-codes for errors in the body.
    """
    scope, elements = require_scope("map_"), _require_list("map_", items)
    for word, number in (
        ("limit", limit),
        ("concurrency", concurrency),
        ("at_least", None if _is_all(at_least) else at_least),
    ):
        if number is not None and (type(number) is not int or not 1 <= number <= 10_000):
            said_so = (
                repr(number)
                if not contains_placeholder(number)
                else f"{display_text(lift(number))}, a value of the workflow"
            )
            kind, hint = ("`all` or a number", 'at_least="all"') if word == "at_least" else ("a number", f"{word}=8")
            raise trace_error(
                "W016", f"{word} must be {kind}, known when the workflow is written, and is {said_so}", hint=hint
            )
    name, inner, result = _trace_body(body, elements, scope)
    maybe = type(result) is Maybe
    with enter_scope(inner):
        if maybe and result._is_list:
            raise missing_error(result)
        inner.return_location = return_location(body) if _source_file(body) else errors.user_location()
        text, schema = template_with_type(
            Placeholder(replace(result._expression, needs=frozenset())) if maybe else result
        )
        expression = lift(result) if not maybe and not inner.nodes else peek(result)
    if not inner.nodes:
        if at_least is not None:
            reason = "without a call none of its elements fails alone"
            hint = "leave it out; or when(length(items) >= 3, lambda: ...) around what uses the list"
            raise trace_error(
                "W016", "at_least is for a body that calls something, and this one calls nothing", hint=hint, why=reason
            )
        return cast("list[U]", Placeholder(_map_expression(elements, expression, name)))
    each_fields = {
        "each": f"${{{elements.cel}}}",
        "as_": name,
        "limit": limit,
        "concurrency": concurrency,
        "at_least": at_least,
    }
    draft = _add_each_node(scope, inner, expression, text, schema, each_fields)
    map_result = node_value(draft, scope)
    return cast("list[U]", Maybe(map_result, is_list=True) if maybe else Placeholder(map_result))


def _is_all(at_least: Any) -> bool:
    return type(at_least) is str and at_least == "all"


def _require_list(word: str, items: Any) -> PendingExpression:
    if not contains_placeholder(items):
        usual = "[item for item in items if ...]" if word == "filter_" else "[reader(text=item) for item in items]"
        hint = errors.comprehension_hint(errors.user_location()) or usual
        raise trace_error("W015", "these items are known now", hint=hint, why=f"{word} is for lists that are not")
    expression = lift(items)
    if not expression.is_unknown and value_kinds(expression.schema) != {"list"}:
        hint = (
            f"or_else({display_text(expression)}, []) gives a default for None"
            if "null" in value_kinds(expression.schema)
            else ""
        )
        raise trace_error(
            "W003",
            f"{word} takes a list, and {display_text(expression)} is {python_type(expression.schema)}",
            hint=hint,
        )
    return expression


def _trace_body(
    body: Callable[..., Any], elements: PendingExpression, scope: TraceScope
) -> tuple[str, TraceScope, Any]:
    """Returns the name of the element, the scope of the body, and its result."""
    parameters = [*inspect.signature(body).parameters.values()]
    required = [
        parameter
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) > 1 or not parameters:
        raise trace_error(
            "W016",
            f"the body takes one element, and this one takes {len(required)} arguments",
            hint="map_(lambda item: ..., items)",
        )
    schema = UNKNOWN_TYPE if elements.is_unknown else cast(Schema, element_type(elements.schema))
    inner = TraceScope(parent=scope, file=_source_file(body) or scope.file, is_type_discovery=scope.is_type_discovery)
    name = inner.new_name((required or parameters)[0].name)
    element = PendingExpression(name, ATOM_PRECEDENCE, schema, inner, frozenset({Variable(name, schema)}))
    with enter_scope(inner):
        return name, inner, trace(body, Placeholder(element))


def _source_file(body: Any) -> str:
    code = getattr(body, "__code__", None)
    return code.co_filename if code is not None else ""


def _map_expression(elements: PendingExpression, body_expression: PendingExpression, name: str) -> PendingExpression:
    """Returns the expression of a body without nodes: `items.map(item, ...)`."""
    outer = frozenset(variable for variable in body_expression.reads if variable.name != name)
    inner = replace(body_expression, reads=outer, scope=elements.scope, node=None)
    cel = f"{elements.bracketed(ATOM_PRECEDENCE)}.map({name}, {body_expression.cel})"
    return combine(cel, ATOM_PRECEDENCE, infer_type(cel, (elements, inner)), [elements, inner])


def _add_each_node(
    scope: TraceScope,
    inner: TraceScope,
    expression: PendingExpression,
    text: Any,
    schema: Schema,
    each_fields: dict[str, Any],
) -> TracedNode:
    """Adds the node that runs a body for each element: the body's only node, or a block."""
    only = inner.nodes[0]
    if len(inner.nodes) > 1 or expression.cel != only.name or not _can_inline(scope, only, each_fields["as_"]):
        block = NodeBlock(nodes={draft.name: draft.freeze() for draft in inner.nodes}, output=text)
        draft = scope.add_node(CallNode, "mapped", schema, call=block, **each_fields)
        draft.effect, draft.body_nodes = body_effect(inner), inner.nodes
        return draft
    when = only.freeze().when
    inner.release_name(only.name)
    draft = scope.add_node(only.kind, only.name, only.schema, **only.fields, **each_fields)
    draft.fields["when"], draft.effect, draft.body_nodes = when, only.effect, only.body_nodes
    draft.has_variable_name = draft.has_variable_name or only.has_variable_name
    return draft


def _can_inline(scope: TraceScope, only: TracedNode, element: str) -> bool:
    """Whether a node has the same meaning outside of its body. A condition that does not read the element is evaluated
    once under `each`.
    """
    node_guards = only.guards[len(only.guards) - only.own_guard_count :]
    return not node_guards or (
        not scope.guards and all(any(variable.name == element for variable in guard.reads) for guard in node_guards)
    )


def filter_(test: Callable[[T], bool], items: Sequence[T], /) -> list[T]:
    """Returns the elements for which a condition holds. The condition calls nothing. Raises `InputError` (W-codes) for
    errors.
    """
    scope, elements = require_scope("filter_"), _require_list("filter_", items)
    name, inner, result = _trace_body(test, elements, scope)
    if inner.nodes:
        call_name = inner.nodes[0].name
        hint = f"judged = map_(lambda {name}: {call_name}(...), ...), then filter_ by its output"
        raise trace_error("W016", f"filter_ takes a condition, and this one calls {call_name}", hint=hint)
    if not contains_placeholder(result):
        raise trace_error(
            "W015", f"this condition is known now: {result!r}", hint="a Python `if` outside of the workflow's body"
        )
    with enter_scope(inner):
        condition = require_boolean(lift(result), "filter_")
    outer = replace(
        condition,
        reads=frozenset(variable for variable in condition.reads if variable.name != name),
        scope=elements.scope,
        node=None,
    )
    cel = f"{elements.bracketed(ATOM_PRECEDENCE)}.filter({name}, {condition.cel})"
    return cast(
        "list[T]", Placeholder(combine(cel, ATOM_PRECEDENCE, infer_type(cel, (elements, outer)), [elements, outer]))
    )


@overload
def values(items: Sequence[Maybe[T]], /) -> list[T]: ...


@overload
def values(items: Sequence[T], /) -> list[T]: ...


def values(items: Any, /) -> Any:
    """Returns the elements that exist, in the same order, of a list whose elements may be missing."""
    if type(items) is Maybe and items._is_list:
        return rename_to_variable(items._expression)
    if type(items) is not Placeholder and contains_placeholder(items):
        hint = (
            f"require({display_text(items._expression)})" if type(items) is Maybe else "first_of(a, b, otherwise=...)"
        )
        raise trace_error("W016", "values() takes the list that map_ gave", hint=f"{hint} for single values")
    return items


@overload
def loop(body: Callable[[T | None], T], /, *, at_most: int, until: Callable[[T], bool]) -> T: ...


@overload
def loop(body: Callable[[T | None, int], T], /, *, at_most: int, until: Callable[[T], bool]) -> T: ...


def loop(body: Any = None, /, *, at_most: Any = None, until: Any = None) -> Any:
    """Repeats a body and returns the value of the last turn. The body gets the previous value (None at first) and
    optionally the turn number.

    `until` is evaluated after every turn. After `at_most` turns (100 at most) the loop ends. Raises `InputError`
    (W-codes) for errors.
    """
    scope = require_scope("loop")
    if not callable(body) or not callable(until) or at_most is None:
        lacks = "a body" if not callable(body) else "`at_most`" if at_most is None else "a function as `until`"
        hint = "loop(lambda previous: ..., at_most=5, until=lambda value: ...)"
        raise trace_error("W016", f"loop() needs {lacks}", hint=hint)
    if type(at_most) is not int or not 1 <= at_most <= 100:
        raise trace_error("W016", f"at_most={at_most!r} is not a number of turns", hint="at_most=5, from 1 to 100")
    parameters = [*inspect.signature(body).parameters.values()]
    if not 1 <= len(parameters) <= 2:
        hint = "lambda previous: ..., or lambda previous, turn: ..."
        raise trace_error(
            "W016", f"the body takes the last turn's value, and this one takes {len(parameters)} arguments", hint=hint
        )
    trial = _LoopTrace(scope, body, until, len(parameters), UNKNOWN_TYPE)
    if "x-unknown" in trial.schema:
        hint = "give the body a first value: or_else(previous, ...)"
        raise trace_error(
            "W016", "the type of the loop cannot be inferred: it depends only on the previous turn", hint=hint
        )
    turn = _LoopTrace(scope, body, until, len(parameters), nullable(trial.schema))
    if reason := type_mismatch(turn.schema, trial.schema):
        message = (
            f"the loop's body gives {python_type(trial.schema)} at first, and then {python_type(turn.schema)}: {reason}"
        )
        raise trace_error("W011", message)
    nodes = {draft.name: draft.freeze() for draft in turn.inner.nodes}
    if not nodes:
        raise trace_error(
            "W016",
            "the loop's body calls nothing, so every turn would be the same",
            hint="call an agent or a tool in it",
        )
    loop_block = LoopBlock(nodes=nodes, output=turn.output, at_most=at_most, until=turn.until)
    draft = scope.add_node(LoopNode, "loop", turn.schema, loop=loop_block)
    draft.effect, draft.body_nodes = body_effect(turn.inner), turn.inner.nodes
    draft.presence = presence_of(nodes_read_by(turn.output, turn.inner), turn.inner.active_guards)
    return Placeholder(node_value(draft, scope))


class _LoopTrace:
    """One trace of a loop's body."""

    def __init__(
        self, scope: TraceScope, body: Callable[..., Any], until: Callable[..., Any], count: int, previous: Schema
    ) -> None:
        self.scope = scope
        code = getattr(body, "__code__", None)
        unknown = "x-unknown" in previous or scope.is_type_discovery
        self.inner = TraceScope(parent=scope, file=code.co_filename if code else scope.file, is_type_discovery=unknown)
        scope_inputs = [("previous", previous), ("turn", {"type": "integer"})][:count]
        with enter_scope(self.inner):
            words = [
                Placeholder(
                    PendingExpression(name, ATOM_PRECEDENCE, schema, self.inner, frozenset({Variable(name, schema)}))
                )
                for name, schema in scope_inputs
            ]
            result = trace(body, *words)
            if type(result) is Maybe:
                raise missing_error(result)
            self.output, self.schema = template_with_type(result)
            condition = trace(until, result)
            if not contains_placeholder(condition):
                raise trace_error(
                    "W015",
                    f"the loop's condition is known now: {condition!r}",
                    hint="until=lambda draft: draft.score > 0.8",
                )
            self.until = f"${{{require_boolean(lift(condition), 'until').cel}}}"
