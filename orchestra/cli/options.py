"""Options that several commands have: each is described once."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AcceptOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--accept",
        metavar="certified|SCORE",
        help="Withhold the output where its certificate does not accept it, or it scores less.",
        show_default="as the workflow says",
    ),
]
BudgetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--budget", metavar="LIMITS", help="Such as tokens=20000,seconds=60; other limits of the workflow stay."
    ),
]
FleetOption: TypeAlias = Annotated[
    str | None, typer.Option("--fleet", help="A name in configs/, or a path.", show_default="as configured")
]
LiveOption: TypeAlias = Annotated[
    bool, typer.Option("--live", help="Show what models write while they do, on stderr; it is unverified.")
]
StreamOption: TypeAlias = Annotated[
    bool, typer.Option("--stream", help="Print each event as it happens, a JSON object a line.")
]
TagsOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--tag", metavar="NAME=VALUE", help="Find it by that later: customer=42; may be given more than once."
    ),
]
TagFilterOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="NAME=VALUE", help="Only runs with that tag: customer=42.", show_default=False),
]
SinceOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN", help="Only runs that began since 12h, 30d, yesterday, 2026-11-24.", show_default=False
    ),
]
UntilOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Only runs that began before that.", show_default=False)
]
ChecksOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--checks", metavar="A,B", help="The node's checks.", show_default="the card's, or how sure the agent is"
    ),
]
ConcurrencyOption: TypeAlias = Annotated[
    int | None, typer.Option("--concurrency", "-c", min=1, help="Rows at once.", show_default="as configured")
]
MaxRowsOption: TypeAlias = Annotated[
    int, typer.Option("--rows", min=0, help="At most so many rows, drawn by the seed; 0 for all.")
]
EvaluationOption: TypeAlias = Annotated[
    str, typer.Option("--evaluation", help="One of evaluation.yaml.", show_default="the first")
]
MetricOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--metric", help="What tells right from wrong.", show_default="the first of evaluation.yaml that does"
    ),
]


def split_names(text: str) -> tuple[str, ...]:
    """The names that an option lists, with commas between."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
