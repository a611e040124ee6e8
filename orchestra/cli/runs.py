"""`orchestra runs`: what ran, what each node did, and the exact bytes that went to a model and came back."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestra.cli.failure import Verb
from orchestra.errors import InputError

Run = Annotated[str, typer.Argument(help="A run's id, the beginning of one, or `last`.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    runs = typer.Typer(no_args_is_help=True, help="What ran: runs, their nodes, and the exact prompts.")

    @runs.command("list", cls=Verb)
    def list_(
        limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many, newest first.")] = 20,
        as_json: AsJson = False,
    ) -> None:
        """List the latest runs."""
        import asyncio

        from orchestra.cli.looking import list_runs

        asyncio.run(list_runs(limit, as_json))

    @runs.command("show", cls=Verb)
    def show(
        run: Run = "last",
        node: Annotated[str, typer.Argument(help="A node's path, such as readings[3].", show_default=False)] = "",
        prompt: Annotated[bool, typer.Option("--prompt", help="Print the bytes that were sent and received, exactly.")] = False,
        attempt: Annotated[int, typer.Option(min=0, help="Of which attempt; 0 is the last.")] = 0,
        everything: Annotated[bool, typer.Option("--all", help="One row an element, however many there are.")] = False,
        as_json: AsJson = False,
    ) -> None:
        """Show a run; or one of its nodes; or, with --prompt, what a model was sent and answered."""
        import asyncio

        from orchestra.cli.looking import show_run

        if prompt and not node:
            raise InputError("C019", "--prompt needs a node", hint=f"orchestra runs show {run} NODE --prompt")
        asyncio.run(show_run(run, node, attempt if prompt else None, everything=everything, as_json=as_json))

    app.add_typer(runs, name="runs", rich_help_panel="Look back")
