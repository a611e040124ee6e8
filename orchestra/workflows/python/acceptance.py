"""Acceptance in Python: the checks of a value, the evidence, and the action if a check refuses it.

    reading = accepted(reader(question=question, context=page.text), checks=quote & numbers, against=page.text)
    reading = accepted(reader(...), checks=quote, against=page.text, otherwise=[retry, abstain])
    reading = accepted(reader(...), checks=quote & short_enough)      # a custom tool

The checks belong to the node that produces the value. A refused value is withheld, and so are the nodes that use it;
the type stays plain, as in the first line. With `abstain` the rest of the workflow continues without the value, so the
second line returns a `Maybe`: `first_of` takes it, and in a `map_` body it makes the list a `list[Maybe[...]]`, for
`values`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, overload

from typing_extensions import TypeVar

from orchestra.verification.rederivation import MAX_SAMPLES
from orchestra.workflows.model import VerifyNode
from orchestra.workflows.python.calls import Step
from orchestra.workflows.python.checks import AcceptThreshold, Check, CheckOperand, Checks, parse_accept
from orchestra.workflows.python.pending import display_text, node_value
from orchestra.workflows.python.placeholders import (
    Maybe,
    Placeholder,
    contains_placeholder,
    peek,
    rename_to_variable,
    template_with_type,
)
from orchestra.workflows.python.scopes import TracedNode, TraceScope, require_scope, trace_error

T = TypeVar("T")

_UNSET: Any = object()
_AGENT_NAME = re.compile(r"[a-z][a-z0-9_]*")


class AgentCheck(Check):
    """A model check. A call with an agent sets the agent that judges."""

    __slots__ = ()

    def __call__(self, agent: Step[..., Any] | str, /) -> Check:
        return _check_by(self.names[0], agent)


def _check_by(check: str, agent: Step[..., Any] | str) -> Check:
    name = agent if isinstance(agent, str) else getattr(agent, "name", "")
    if not isinstance(name, str) or not _AGENT_NAME.fullmatch(name):
        raise trace_error("W016", f"{check}({agent!r}) names no agent", hint=f"{check}(second_reader)")
    return Check(f"{check}({name})", steps=() if isinstance(agent, str) else (agent,))


@dataclass(frozen=True, slots=True)
class RecoveryAction:
    """An action on a refused value that replaces it or keeps a part of it."""

    name: Literal["retry", "escalate", "ask", "back_off"]


@dataclass(frozen=True, slots=True)
class AbstainAction:
    """The action on a refused value that continues without it."""

    name: Literal["abstain"] = "abstain"


quote: Final = Check("quote")
"""Every `Quote` occurs literally in the evidence."""
support: Final = Check("support")
"""Most words of each answer occur in the quotes next to it."""
numbers: Final = Check("numbers")
"""Every number occurs in the evidence, or is the value of an expression over such numbers."""
recompute: Final = Check("recompute")
"""Every expression has the value that is stated for it."""
format_: Final = Check("format")
"""Account and card numbers have valid check digits; codes of countries, currencies and languages are listed; dates
exist.
"""
entailment: Final = AgentCheck("entailment")
"""A small verifier model finds that the evidence supports the claims; `entailment(judge)` names another agent."""
ScoreMode: TypeAlias = Literal["combined"]
"""How the scores of the checks are combined: the minimum by default, or the agent's fitted combination."""

combined: Final = "combined"
retry: Final = RecoveryAction("retry")
"""Makes another attempt, with the reason of the refusal."""
escalate: Final = RecoveryAction("escalate")
"""Makes an attempt with the fleet's larger model; with each of them in turn if there are several."""
back_off: Final = RecoveryAction("back_off")
"""Removes the parts that `entailment` does not pass, and accepts the remaining value."""
abstain: Final = AbstainAction()
"""Withholds the value and continues without it."""


def rederive(agent: Step[..., Any] | str, /) -> Check:
    """Another agent, which has not seen the value, derives the same value from the same inputs."""
    return _check_by("rederive", agent)


def agree(samples: int = 5, /) -> Check:
    """Most of the samples of the agent itself, 2 to 16, agree. The check can resolve an `unknown` of other checks, not
    a refusal.
    """
    if isinstance(samples, bool) or not isinstance(samples, int) or not 2 <= samples <= MAX_SAMPLES:
        raise trace_error(
            "W016", f"agree({samples!r}) is no number of samples from 2 to {MAX_SAMPLES}", hint="agree(5)"
        )
    return Check(f"agree({samples})")


@overload
def accepted(  # type: ignore[overload-overlap]  # who hides `abstain` behind a wider type must say `require`, no more
    value: T,
    /,
    *,
    checks: Checks,
    against: object = ...,
    score: ScoreMode | None = None,
    accept: AcceptThreshold | None = None,
    otherwise: Sequence[RecoveryAction] = (),
) -> T: ...
@overload
def accepted(
    value: T,
    /,
    *,
    checks: Checks,
    against: object = ...,
    score: ScoreMode | None = None,
    accept: AcceptThreshold | None = None,
    otherwise: Sequence[RecoveryAction | AbstainAction],
) -> Maybe[T]: ...
def accepted(
    value: Any,
    /,
    *,
    checks: Checks,
    against: object = _UNSET,
    score: ScoreMode | None = None,
    accept: AcceptThreshold | None = None,
    otherwise: Sequence[RecoveryAction | AbstainAction] = (),
) -> Any:
    """Returns the value of a call after its checks accept it. The checks are set on the node of that call.

    Args:
        value: The result of one call.
        checks: The checks that it must pass.
        against: The evidence, a constant or a value of the workflow; by default that of the card.
        score: `combined` to use the agent's fitted combination of the scores; by default the minimum.
        accept: The score from which it is accepted, or `certified`; by default that of the card, or 0.5.
        otherwise: The actions on a refused value, in order.

    Raises:
        InputError: W016 for a value that is not the result of one call.
    """
    scope = require_scope("accepted")
    node = _producing_node(value, scope, "accepted")
    expression = peek(value)
    check = _require_checks(checks)
    node.fields |= _acceptance_fields(check, against, accept)
    if score is not None:
        if score != combined:
            raise trace_error(
                "W016", f"score={score!r} is not a way to combine scores", hint="score=combined, or leave it out"
            )
        node.fields["score"] = score
    scope.root.steps += check.steps
    node.fields["otherwise"] = tuple(action.name for action in _require_actions(otherwise))
    placeholder = rename_to_variable(expression)
    return (
        Maybe(placeholder._expression)
        if any(isinstance(action, AbstainAction) for action in otherwise)
        else placeholder
    )


def _producing_node(value: Any, scope: TraceScope, word: str) -> TracedNode:
    """Returns the node whose complete value it is."""
    if type(value) is Maybe:
        text = display_text(value._expression)
        inside = "map_(lambda item: accepted(...), items)" if value._is_list else "when(condition, accepted(...))"
        raise trace_error("W016", f"{word}() comes first, and {text} may be missing already", hint=inside)
    if type(value) is not Placeholder:
        raise trace_error(
            "W016",
            f"{word}() takes the result of a call, and this is known now",
            hint=f"{word}(reader(...), checks=quote)",
        )
    node = value._expression.node
    if node is not None and "each" in node.fields:
        hint = f"map_(lambda item: {word}(..., checks=...), ...)"
        raise trace_error(
            "W016", f"{display_text(value._expression)} is a list: each element is accepted by itself", hint=hint
        )
    if node is None or node.scope is not scope or value._expression.cel != node.name:
        text, traced_node = display_text(value._expression), next(iter(value._expression.needs), None)
        rest = (
            text.removeprefix(traced_node.name)
            if traced_node is not None and len(value._expression.needs) == 1
            else text
        )
        hint = (
            f"{word}({traced_node.name}(...), checks=...){rest}"
            if traced_node is not None and rest != text
            else "write it around the call"
        )
        raise trace_error("W016", f"{word}() takes the result of one call, and {text} is not one", hint=hint)
    if node.fallback_for:
        hint = f"first_of({word}({node.fallback_for}(...), checks=..., otherwise=[abstain]), otherwise=lambda: ...)"
        text = display_text(value._expression)
        raise trace_error("W016", f"{word}() comes first, and {text} is a call with a fallback", hint=hint)
    if "checks" in node.fields:
        raise trace_error(
            "W016", f"{display_text(value._expression)} has its checks already", hint="checks=quote & numbers"
        )
    return node


def _require_checks(checks: object) -> Check:
    if isinstance(checks, CheckOperand) and (check := checks.as_check()).names:
        return check
    hint = (
        "@tool(effect='pure') makes one of a function"
        if inspect.isfunction(checks)
        else "checks=quote & numbers, or quote | entailment"
    )
    raise trace_error("W016", f"checks={checks!r} are no checks", hint=hint)


def _acceptance_fields(checks: Check, against: object, accept: AcceptThreshold | None) -> dict[str, Any]:
    clause: dict[str, Any] = {"checks": checks.names}
    if against is not _UNSET:
        clause["against"] = template_with_type(against)[0]
    if accept is not None:
        clause["accept"] = parse_accept(accept)
    return clause


def _require_actions(otherwise: Sequence[RecoveryAction | AbstainAction]) -> Sequence[RecoveryAction | AbstainAction]:
    if not isinstance(otherwise, list | tuple):
        name = otherwise.name if isinstance(otherwise, RecoveryAction | AbstainAction) else "retry"
        description = (
            f"otherwise={name}"
            if isinstance(otherwise, RecoveryAction | AbstainAction)
            else "what otherwise=... is given"
        )
        raise trace_error("W016", f"{description} is not a list of actions", hint=f"otherwise=[{name}]")
    for action in otherwise:
        if contains_placeholder(action):
            raise trace_error(
                "W016",
                "otherwise=[...] has a value of the workflow in it",
                hint="otherwise=[ask], without a question",
            )
        if not isinstance(action, RecoveryAction | AbstainAction):
            raise trace_error(
                "W016", f"otherwise=[{action!r}] is not known", hint="otherwise=[retry, escalate, ask, abstain]"
            )
    return otherwise


@overload
def verify(  # type: ignore[overload-overlap]  # as of `accepted`
    value: T,
    /,
    *,
    checks: Checks,
    against: object = ...,
    accept: AcceptThreshold | None = None,
    otherwise: Sequence[RecoveryAction] = (),
) -> T: ...
@overload
def verify(
    value: T,
    /,
    *,
    checks: Checks,
    against: object = ...,
    accept: AcceptThreshold | None = None,
    otherwise: Sequence[RecoveryAction | AbstainAction],
) -> Maybe[T]: ...
def verify(
    value: Any,
    /,
    *,
    checks: Checks,
    against: object = _UNSET,
    accept: AcceptThreshold | None = None,
    otherwise: Sequence[RecoveryAction | AbstainAction] = (),
) -> Any:
    """Checks a finished value that consists of several outputs, in a node of its own.

    A refused value is withheld. With `back_off` in `otherwise`, only the parts that the evidence does not support are
    withheld.
    """
    scope = require_scope("verify")
    if not contains_placeholder(value):
        raise trace_error(
            "W016",
            "verify() takes a value of the workflow, and this is known now",
            hint="verify(answer, checks=quote, against=...)",
        )
    text, schema = template_with_type(value)
    check = _require_checks(checks)
    scope.root.steps += check.steps
    actions = tuple(action.name for action in _require_actions(otherwise))
    draft = scope.add_node(
        VerifyNode, "verified", schema, verify=text, **_acceptance_fields(check, against, accept), otherwise=actions
    )
    placeholder = Placeholder(node_value(draft, scope))
    return Maybe(placeholder._expression) if "abstain" in actions else placeholder
