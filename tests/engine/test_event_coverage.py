"""Closed unions are complete: every event is folded, every proposal executed, every phase with a decision decided."""

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
    """Returns the names of the classes and values in a function's `match`."""
    found: set[str] = set()
    for part in ast.walk(tree(source)):
        match part:
            case ast.MatchClass(cls=ast.Name(id=name)) | ast.MatchValue(value=ast.Attribute(attr=name)):
                found.add(name)
            case _:
                pass
    return found


def moves(source: Any) -> Iterator[str]:
    """Returns the phases that a module moves units to, for which `decide` is called."""
    for call in ast.walk(tree(source)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "request_decision":
            yield from (
                part.attr
                for part in ast.walk(call.args[1])
                if isinstance(part, ast.Attribute) and part.attr in Phase.__members__
            )


def names(union: Any) -> set[str]:
    return {kind.__name__ for kind in get_args(union)}


def test_fold_exists_for_every_event_type() -> None:
    assert set(evolve.FOLDS) == set(get_args(Event))


def test_every_proposal_type_is_executed() -> None:
    assert cases(Driver._execute) == names(Proposal)


def test_replay_describes_every_proposal_type() -> None:
    assert set(replay._ACTION_TEXT) == set(get_args(Proposal))


def test_every_phase_with_decision_is_decided() -> None:
    assert {*moves(evolve), *moves(scopes)} == cases(decide._advance)
