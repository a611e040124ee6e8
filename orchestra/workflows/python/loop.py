"""Loops: a body that is turned until a condition holds, at most so many times."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, overload

from typing_extensions import TypeVar

from orchestra.schema.types import Schema, nullable
from orchestra.workflows.model import LoopBlock, LoopNode
from orchestra.workflows.python.conditions import require_boolean
from orchestra.workflows.python.pending import (
    ATOM_PRECEDENCE,
    UNKNOWN_TYPE,
    PendingExpression,
    node_value,
    type_mismatch,
)
from orchestra.workflows.python.placeholders import (
    Maybe,
    Placeholder,
    contains_placeholder,
    lift,
    missing_error,
    template_with_type,
)
from orchestra.workflows.python.presence import nodes_read_by, presence_of
from orchestra.workflows.python.printer import python_type
from orchestra.workflows.python.scopes import (
    TraceScope,
    Variable,
    body_effect,
    enter_scope,
    require_scope,
    trace,
    trace_error,
)

T = TypeVar("T")


@overload
def loop(body: Callable[[T | None], T], /, *, at_most: int, until: Callable[[T], bool]) -> T: ...
@overload
def loop(body: Callable[[T | None, int], T], /, *, at_most: int, until: Callable[[T], bool]) -> T: ...
def loop(body: Any = None, /, *, at_most: Any = None, until: Any = None) -> Any:
    """What the last turn of a body gives. The body gets what the turn before gave, None in the first, and the turn's number if it asks.

    `until` is asked after every turn; after `at_most` turns (100 at most) the last one's value stands, whatever it says.
    Raises `InputError` (W-codes) for mistakes.
    """
    scope = require_scope("loop")
    if not callable(body) or not callable(until) or at_most is None:
        lacks = "a body" if not callable(body) else "`at_most`" if at_most is None else "a function as `until`"
        hint = "loop(lambda previous: ..., at_most=5, until=lambda value: ...)"
        raise trace_error("W016", f"loop() needs {lacks}", hint=hint)
    if type(at_most) is not int or not 1 <= at_most <= 100:
        raise trace_error("W016", f"at_most={at_most!r} is no number of turns", hint="at_most=5, from 1 to 100")
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
            "W016", "the type of what the loop gives cannot be found: it is made of the turn before alone", hint=hint
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
    made = LoopBlock(nodes=nodes, output=turn.output, at_most=at_most, until=turn.until)
    draft = scope.add_node(LoopNode, "loop", turn.schema, loop=made)
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
        given = [("previous", previous), ("turn", {"type": "integer"})][:count]
        with enter_scope(self.inner):
            words = [
                Placeholder(
                    PendingExpression(name, ATOM_PRECEDENCE, schema, self.inner, frozenset({Variable(name, schema)}))
                )
                for name, schema in given
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
