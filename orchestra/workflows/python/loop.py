"""Loops: a body that is turned until a condition holds, at most so many times."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, overload

from typing_extensions import TypeVar

from orchestra.schema.types import Schema, nullable
from orchestra.workflows.model import Loop, LoopNode
from orchestra.workflows.python.conditions import boolean
from orchestra.workflows.python.pending import ATOM, UNKNOWN, Wired, node_value, unfit
from orchestra.workflows.python.placeholders import Guarded, Placeholder, holds, lift, missing, template
from orchestra.workflows.python.presence import presence, read_by
from orchestra.workflows.python.printer import typed
from orchestra.workflows.python.scopes import Scope, Variable, current, effect, fault, inside, traced

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
    scope = current("loop")
    if not callable(body) or not callable(until) or at_most is None:
        lacks = "a body" if not callable(body) else "`at_most`" if at_most is None else "a function as `until`"
        hint = "loop(lambda previous: ..., at_most=5, until=lambda value: ...)"
        raise fault("W016", f"loop() needs {lacks}", hint=hint)
    if type(at_most) is not int or not 1 <= at_most <= 100:
        raise fault("W016", f"at_most={at_most!r} is no number of turns", hint="at_most=5, from 1 to 100")
    parameters = [*inspect.signature(body).parameters.values()]
    if not 1 <= len(parameters) <= 2:
        hint = "lambda previous: ..., or lambda previous, turn: ..."
        raise fault("W016", f"the body takes the last turn's value, and this one takes {len(parameters)} arguments", hint=hint)
    trial = _Turn(scope, body, until, len(parameters), UNKNOWN)
    if "x-unknown" in trial.schema:
        hint = "give the body a first value: or_else(previous, ...)"
        raise fault("W016", "the type of what the loop gives cannot be found: it is made of the turn before alone", hint=hint)
    turn = _Turn(scope, body, until, len(parameters), nullable(trial.schema))
    if reason := unfit(turn.schema, trial.schema):
        message = f"the loop's body gives {typed(trial.schema)} at first, and then {typed(turn.schema)}: {reason}"
        raise fault("W011", message)
    nodes = {draft.name: draft.frozen() for draft in turn.inner.nodes}
    if not nodes:
        raise fault("W016", "the loop's body calls nothing, so every turn would be the same", hint="call an agent or a tool in it")
    made = Loop(nodes=nodes, output=turn.output, at_most=at_most, until=turn.until)
    draft = scope.add(LoopNode, "loop", turn.schema, loop=made)
    draft.effect, draft.inner = effect(turn.inner), turn.inner.nodes
    draft.presence = presence(read_by(turn.output, turn.inner), turn.inner.standing)
    return Placeholder(node_value(draft, scope))


class _Turn:
    """One trace of a loop's body."""

    def __init__(self, scope: Scope, body: Callable[..., Any], until: Callable[..., Any], count: int, previous: Schema) -> None:
        self.scope = scope
        code = getattr(body, "__code__", None)
        unknown = "x-unknown" in previous or scope.unknown
        self.inner = Scope(parent=scope, home=code.co_filename if code else scope.home, unknown=unknown)
        given = [("previous", previous), ("turn", {"type": "integer"})][:count]
        with inside(self.inner):
            words = [Placeholder(Wired(name, ATOM, schema, self.inner, frozenset({Variable(name, schema)}))) for name, schema in given]
            result = traced(body, *words)
            if type(result) is Guarded:
                raise missing(result)
            self.output, self.schema = template(result)
            condition = traced(until, result)
            if not holds(condition):
                raise fault("W015", f"the loop's condition is known now: {condition!r}", hint="until=lambda draft: draft.score > 0.8")
            self.until = f"${{{boolean(lift(condition), 'until').cel}}}"
