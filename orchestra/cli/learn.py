"""`orchestra learn`: specialists that are measured, taught, and given their place."""

from __future__ import annotations

import typer

from orchestra.cli import evaluating


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    learn = typer.Typer(no_args_is_help=True, help="Specialists: data, training, evaluation, promotion.")
    evaluating.register(learn)
    app.add_typer(learn, name="learn", rich_help_panel="Look it up")
