"""Options that several commands have: each is described once."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Budget: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--budget", metavar="LIMITS", help="Such as tokens=20000,seconds=60; other limits of the workflow stay."),
]
Fleet: TypeAlias = Annotated[str | None, typer.Option("--fleet", help="A name in configs/, or a path.", show_default="as configured")]
Live: TypeAlias = Annotated[bool, typer.Option("--live", help="Show what models write while they do, on stderr; it is unverified.")]
Stream: TypeAlias = Annotated[bool, typer.Option("--stream", help="Print each event as it happens, a JSON object a line.")]
