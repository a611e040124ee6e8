"""Function calls, as the Berkeley Function Calling Leaderboard compares them: by name and arguments, whatever their order.

After its AST check, `bfcl_eval/eval_checker/ast_eval/ast_checker.py` of https://github.com/ShishirPatil/gorilla (Patil, Mao, Yan, Ji,
Suresh, Stoica, Gonzalez 2025, *The Berkeley Function Calling Leaderboard*). What is expected are possible answers, `{function:
{argument: [values that are accepted]}}`; "" among the values says that the argument may be left out. One thing is simpler here: numbers
are compared by their value, while BFCL also compares their types.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

OMITTED_ARGUMENT = ""
"""Stands among the accepted values of an argument that may be left out."""
_IGNORED_CHARACTERS = re.compile(r"[ ,./\-_*^]")
"""What texts may differ in."""


def calls_match(wanted: Any, given: Any) -> bool:
    """Whether calls, `{"name", "arguments"}`, are those of the possible answers, one to one; where none is expected, none is given."""
    if not isinstance(wanted, list | tuple) or not isinstance(given, list | tuple) or len(wanted) != len(given):
        return False
    fits = [[at for at, call in enumerate(given) if call_matches(possible, call)] for possible in wanted]
    taken: dict[int, int] = {}
    return all(_augment_matching(number, fits, taken, set()) for number in range(len(wanted)))


def call_matches(possible: Any, call: Any) -> bool:
    """Whether a call is the one of a possible answer."""
    if not isinstance(call, Mapping) or not isinstance(possible, Mapping) or len(possible) != 1:
        return False
    (name, arguments), *_ = possible.items()
    return call.get("name") == name and _arguments_match(arguments, call.get("arguments") or {})


def _augment_matching(number: int, fits: Sequence[Sequence[int]], taken: dict[int, int], seen: set[int]) -> bool:
    """Gives a possible answer a call of its own, moving others where they have another (the augmenting paths of Kuhn 1955)."""
    for at in fits[number]:
        if at not in seen:
            seen.add(at)
            if at not in taken or _augment_matching(taken[at], fits, taken, seen):
                taken[at] = number
                return True
    return False


def _arguments_match(accepted: Mapping[str, Any], given: Any) -> bool:
    """Whether a record has no field that is not accepted, and each that may not be left out, with an accepted value."""
    if not isinstance(given, Mapping) or given.keys() - accepted.keys():
        return False
    for name, values in accepted.items():
        options = values if isinstance(values, list | tuple) else [values]
        if not (any(_value_matches(option, given[name]) for option in options) if name in given else OMITTED_ARGUMENT in options):
            return False
    return True


def _value_matches(accepted: Any, given: Any) -> bool:
    if isinstance(accepted, bool) or isinstance(given, bool):
        return accepted is given
    match accepted, given:
        case int() | float(), int() | float():
            return accepted == given or math.isclose(_clamp(accepted), _clamp(given), rel_tol=1e-9)
        case str(), str():
            return _normalize(accepted) == _normalize(given)
        case list() | tuple(), list() | tuple():
            return len(accepted) == len(given) and all(map(_value_matches, accepted, given))
        case Mapping(), Mapping():
            return _arguments_match(accepted, given)
        case _:
            return bool(accepted == given)


def _clamp(value: float) -> float:
    """A number as a float; one that is too large for it as the largest."""
    return float(max(-sys.float_info.max, min(sys.float_info.max, value)))


def _normalize(text: str) -> str:
    return _IGNORED_CHARACTERS.sub("", text).lower().replace("'", '"')
