"""Checks as Python values: `quote & numbers`, `quote | entailment`, and tools that are used as checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from orchestra.core.errors import InputError
from orchestra.workflows.python.calls import Step
from orchestra.workflows.python.scopes import current_scope, trace_error

if TYPE_CHECKING:
    from orchestra.verification.check_expression import CheckExpression

AcceptThreshold: TypeAlias = float | Literal["certified"]
"""The score in [0, 1] from which a value is accepted, or `certified` for the threshold of a certificate."""

certified: Final = "certified"


class CheckOperand(ABC):
    """Base class of values that `&` and `|` combine into checks: `Check` and `Tool`."""

    __slots__ = ()

    @abstractmethod
    def as_check(self) -> Check:
        """Returns the value as a check."""

    def __and__(self, other: CheckOperand) -> Check:
        """Returns a check that passes if both pass."""
        if not isinstance(other, CheckOperand):
            return NotImplemented
        left, right = self.as_check(), other.as_check()
        return Check(*dict.fromkeys((*left.names, *right.names)), steps=(*left.steps, *right.steps))

    def __or__(self, other: CheckOperand) -> Check:
        """Returns a check that passes if one of the two passes."""
        if not isinstance(other, CheckOperand):
            return NotImplemented

        from orchestra.verification.check_expression import AnyOf, flatten

        left, right = self.as_check(), other.as_check()
        return Check(str(flatten(AnyOf, [left._rule, right._rule])), steps=(*left.steps, *right.steps))


@dataclass(frozen=True, slots=True)
class Check(CheckOperand):
    """Checks that must all pass, such as `quote & numbers`, `quote | entailment` or `Check("tool(mine)")`."""

    names: tuple[str, ...]
    steps: tuple[Step[..., Any], ...] = field(default=(), compare=False, repr=False)
    """The agents and tools that were given as objects, and not by name."""

    def __init__(self, *names: str, steps: tuple[Step[..., Any], ...] = ()) -> None:
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "steps", steps)

    def as_check(self) -> Check:
        """Returns itself."""
        return self

    def __bool__(self) -> bool:
        if current_scope() is not None:
            raise check_truth_error(str(self))
        return True

    @property
    def _rule(self) -> CheckExpression:

        from orchestra.verification.check_expression import AllOf, CheckSyntaxError, flatten, parse_check

        try:
            return flatten(AllOf, [parse_check(name) for name in self.names])
        except (CheckSyntaxError, IndexError) as error:
            raise trace_error(
                "W016", f"{self} is not a check: {error}", hint='quote | entailment, or Check("quote")'
            ) from None

    def __str__(self) -> str:
        return " & ".join(f"({name})" if "|" in name and len(self.names) > 1 else name for name in self.names)


Checks: TypeAlias = CheckOperand
"""The type of a `checks` argument: a check, or a tool that is used as one."""


def check_truth_error(text: str) -> InputError:
    """Returns the error of a check that is used as a bool, since Python's `and` would drop one of two checks."""
    other_form = "quote" if text == "numbers" else "numbers"
    return trace_error(
        "W005",
        f"the check {text} has no truth value",
        hint=f"{text} & {other_form} for both, {text} | {other_form} for one of two",
        why="Python's and, or, not and if decide now, and leave out one of two checks",
    )


def card_checks(given: Any) -> tuple[Any, tuple[Step[..., Any], ...]]:
    """Returns the checks of a card as text, and the agents and tools in them.

    Values that are not checks are returned unchanged; the card refuses them.
    """
    items = [given] if isinstance(given, CheckOperand) else given
    if isinstance(items, str) or not isinstance(items, Iterable):
        return given, ()
    checks = [item.as_check() if isinstance(item, CheckOperand) else item for item in items]
    names = [name for check in checks for name in (check.names if isinstance(check, Check) else (check,))]
    return tuple(names), tuple(step for check in checks if isinstance(check, Check) for step in check.steps)


def parse_accept(accept: AcceptThreshold) -> AcceptThreshold:
    """Returns the threshold as the workflow model stores it. Raises `InputError` W016 for other values."""
    if accept == certified:
        return certified
    if not isinstance(accept, int | float) or not 0 <= accept <= 1:
        raise trace_error("W016", f"accept={accept!r} is no score", hint="accept=0.8, from 0 to 1, or accept=certified")
    return float(accept)
