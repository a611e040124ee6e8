"""Options that several commands share, and the parsers of their values."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from orchestra.core.errors import InputError
from orchestra.core.suggestions import closest_match

if TYPE_CHECKING:
    from orchestra.workflows.model import Budget
    from orchestra.workflows.python.checks import AcceptThreshold

JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AcceptOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--accept",
        metavar="certified|SCORE",
        help="Withhold an output that the certificate does not accept, or with a lower score.",
        show_default="that of the workflow",
    ),
]
BudgetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        metavar="LIMITS",
        help="Limits such as tokens=20000,seconds=60; they override those of the workflow.",
    ),
]
FleetOption: TypeAlias = Annotated[
    str | None, typer.Option("--fleet", help="The fleet: a name in configs/, or a path.", show_default="as configured")
]
EndpointOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="URL",
        help="A model server with OpenAI's API instead of the fleet, such as http://127.0.0.1:11434/v1.",
        show_default="as configured",
    ),
]
ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="NAME", help="The model of the endpoint.", show_default="the only one that it lists"
    ),
]
LiveOption: TypeAlias = Annotated[
    bool, typer.Option("--live", help="Show unverified model output on stderr while it is generated.")
]
StreamOption: TypeAlias = Annotated[
    bool, typer.Option("--stream", help="Print each event as a line of JSON when it happens.")
]
TagsOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="NAME=VALUE", help="A tag for later searches: customer=42; may be repeated."),
]
TagFilterOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="NAME=VALUE", help="Only runs with this tag: customer=42.", show_default=False),
]
SinceOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN", help="Only runs that started since 12h, 30d, yesterday, 2026-11-24.", show_default=False
    ),
]
UntilOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Only runs that started before this time.", show_default=False)
]
ChecksOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--checks",
        metavar="A,B",
        help="Comma-separated checks of the node.",
        show_default="those of the card, or the agent's confidence",
    ),
]
ConcurrencyOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--concurrency", "-c", min=1, help="The number of concurrent rows.", show_default="as configured"),
]
MaxRowsOption: TypeAlias = Annotated[
    int, typer.Option("--rows", min=0, help="The maximum number of rows, sampled by the seed; 0 for all.")
]
EvaluationOption: TypeAlias = Annotated[
    str, typer.Option("--evaluation", help="The name of an evaluation in evaluation.yaml.", show_default="the first")
]
MetricOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--metric",
        help="The metric that decides whether an answer is correct.",
        show_default="the first such metric of evaluation.yaml",
    ),
]


def split_names(text: str) -> tuple[str, ...]:
    """Splits a comma-separated list of names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_budget(given: Sequence[str]) -> Budget | None:
    """Parses `--budget tokens=20000,seconds=60`; None without limits. Raises `InputError` C008."""
    from pydantic import ValidationError

    from orchestra.workflows.model import Budget

    limits: dict[str, float] = {}
    for part in (part.strip() for option in given for part in option.split(",")):
        name, _, number = part.partition("=")
        if name not in Budget.model_fields:
            near = closest_match(name, Budget.model_fields)
            hint = f"did you mean {near}=…?" if near else f"the limits are: {', '.join(Budget.model_fields)}"
            raise InputError("C008", f"--budget {part}: there is no limit {name!r}", hint=hint)
        try:
            value = float(number.replace("_", ""))
        except ValueError:
            raise InputError(
                "C008", f"--budget {part}: {number!r} is not a number", hint="write --budget tokens=20000"
            ) from None
        limits[name] = value if name == "seconds" or not value.is_integer() else int(value)
    try:
        return Budget.model_validate(limits) if limits else None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        hint = (
            "limits are above 0; tokens, calls and check_tokens are whole numbers, seconds and money may "
            "have a fraction"
        )
        raise InputError("C008", f"--budget {fault['loc'][0]}: {fault['msg']}", hint=hint) from None


def parse_accept(text: str) -> AcceptThreshold | None:
    """Parses `--accept`: `certified` or a score; None for an empty text. Raises `InputError` V029."""
    if text in ("", "certified"):
        return "certified" if text else None
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise InputError("V029", f"--accept {text} is not a score", hint="--accept certified, or a score from 0 to 1")
    return score


_SECONDS = {"h": 3600, "d": 86_400, "w": 604_800}


def parse_age(text: str, option: str = "--older") -> float:
    """Converts an age such as `30d`, `12h` or `2w` to seconds. Raises `InputError` C010."""
    if match := re.fullmatch(r"([0-9]{1,6})([hdw])", text):
        return float(match[1]) * _SECONDS[match[2]]
    raise InputError(
        "C010", f"{text!r} is not an age", hint=f"write hours, days or weeks: {option} 12h, {option} 30d, {option} 2w"
    )


def parse_time(text: str, option: str) -> float:
    """Converts an age, or a day, to seconds since the epoch. A day means its local midnight. Raises `InputError`
    C010.
    """
    if text in ("today", "yesterday"):
        # Through the date of that day: after a change of the clocks its midnight is not a multiple of 24 hours away.
        text = (datetime.now().astimezone().date() - timedelta(days=text == "yesterday")).isoformat()
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        try:
            return datetime.fromisoformat(text).astimezone().timestamp()
        except (ValueError, OverflowError, OSError) as error:
            raise InputError("C010", f"{text} is not a date", hint=f"{option} 2026-11-24") from error
    return time.time() - parse_age(text, option)


def parse_period(since: str | None, until: str | None) -> tuple[float, float]:
    """Parses --since and --until; an omitted one is unbounded. Raises `InputError` C010, also for an empty period."""
    # an age in weeks may reach before the first date
    begin = -inf if since is None else max(0.0, parse_time(since, "--since"))
    end = inf if until is None else max(0.0, parse_time(until, "--until"))
    if begin >= end:
        raise InputError(
            "C010", f"no run can start both since {since} and before {until}", hint="--since yesterday --until today"
        )
    return begin, end
