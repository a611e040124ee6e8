"""The closed unions are closed: every event is folded, every proposal carried out, every phase that asks for a decision
decided.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, get_args

from orchestra.core.events import Event
from orchestra.engine import decide, evolve, replay, scopes
from orchestra.engine.driver import Driver
from orchestra.engine.proposals import Proposal
from orchestra.engine.state import Phase


def tree(source: Any) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(source)))


def cases(source: Any) -> set[str]:
    """The names of the classes and values that a function's `match` tells apart."""
    found: set[str] = set()
    for part in ast.walk(tree(source)):
        match part:
            case ast.MatchClass(cls=ast.Name(id=name)) | ast.MatchValue(value=ast.Attribute(attr=name)):
                found.add(name)
            case _:
                pass
    return found


def moves(source: Any) -> Iterator[str]:
    """The phases that a module moves units to, and so asks `decide` about."""
    for call in ast.walk(tree(source)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "request_decision":
            yield from (
                part.attr
                for part in ast.walk(call.args[1])
                if isinstance(part, ast.Attribute) and part.attr in Phase.__members__
            )


def names(union: Any) -> set[str]:
    return {kind.__name__ for kind in get_args(union)}


def test_there_is_a_fold_for_every_event_and_for_nothing_else() -> None:
    assert set(evolve.FOLDS) == set(get_args(Event))


def test_every_proposal_is_carried_out() -> None:
    assert cases(Driver._execute) == names(Proposal)


def test_a_replay_has_words_for_every_proposal() -> None:
    assert set(replay._ACTION_TEXT) == set(get_args(Proposal))


def test_every_phase_that_asks_for_a_decision_gets_one() -> None:
    assert {*moves(evolve), *moves(scopes)} == cases(decide._advance)
