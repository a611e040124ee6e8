"""`--budget tokens=20000,seconds=60`: limits of a run, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestra.core.errors import InputError
from orchestra.core.suggestions import closest_match

if TYPE_CHECKING:
    from orchestra.workflows.model import Budget
    from orchestra.workflows.python.checks import AcceptThreshold


def parse_budget(given: Sequence[str]) -> Budget | None:
    """The budget that options state; None for none. Raises `InputError` C008."""
    from pydantic import ValidationError

    from orchestra.workflows.model import Budget

    limits: dict[str, float] = {}
    for part in (part.strip() for option in given for part in option.split(",")):
        name, _, number = part.partition("=")
        if name not in Budget.model_fields:
            near = closest_match(name, Budget.model_fields)
            hint = f"did you mean {near}=…?" if near else f"limits are: {', '.join(Budget.model_fields)}"
            raise InputError("C008", f"--budget {part}: there is no limit {name!r}", hint=hint)
        try:
            value = float(number.replace("_", ""))
        except ValueError:
            raise InputError(
                "C008", f"--budget {part}: {number!r} is no number", hint="write --budget tokens=20000"
            ) from None
        limits[name] = value if name == "seconds" or not value.is_integer() else int(value)
    try:
        return Budget.model_validate(limits) if limits else None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        hint = "limits are above 0; tokens, calls and check_tokens are whole numbers, seconds and money may have a fraction"
        raise InputError("C008", f"--budget {fault['loc'][0]}: {fault['msg']}", hint=hint) from None


def parse_accept(text: str) -> AcceptThreshold | None:
    """What `--accept` states: `certified`, or a score; None where it states nothing. Raises `InputError` V029."""
    if text in ("", "certified"):
        return "certified" if text else None
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise InputError("V029", f"--accept {text} is no score", hint="--accept certified, or a score from 0 to 1")
    return score
