"""`orchestra runs`: what ran, what each node did, what waits, and runs gone on with, made again, compared and deleted."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from orchestra.cli.failure import Verb
from orchestra.cli.opening import opener
from orchestra.cli.options import Live
from orchestra.errors import InputError

Run = Annotated[str, typer.Argument(help="A run's id, the beginning of one, or `last`.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Stream = Annotated[bool, typer.Option("--stream", help="Print each event as it happens, a JSON object a line.")]
By = Annotated[str, typer.Option(metavar="NAME", help="Who says so; the run's journal keeps it.", show_default=False)]
CODES = "Exits as `orchestra run` does."


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    runs = typer.Typer(no_args_is_help=True, help="What ran, and what waits: look, answer, go on, make again, delete.")
    for add in (_look, _go_on, _make_again, _keep):
        add(runs)
    app.add_typer(runs, name="runs", rich_help_panel="Look back")


def _leave(code: int) -> None:
    if code:
        raise typer.Exit(code)


def _look(runs: typer.Typer) -> None:
    @runs.command("list", cls=Verb, rich_help_panel="Look")
    def list_(
        limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many, newest first.")] = 20,
        status: Annotated[str, typer.Option(help="Only those: running, waiting, interrupted, done, failed, …", show_default=False)] = "",
        workflow: Annotated[str, typer.Option(metavar="NAME", help="Only those of this workflow or agent.", show_default=False)] = "",
        as_json: AsJson = False,
    ) -> None:
        """List the latest runs. `waiting` ones wait for a person; the process of `interrupted` ones is gone."""
        import asyncio

        from orchestra.cli.listing import list_runs

        asyncio.run(list_runs(limit, status, workflow, as_json=as_json))

    @runs.command("show", cls=Verb, rich_help_panel="Look")
    def show(
        run: Run = "last",
        node: Annotated[str, typer.Argument(help="A node's path, such as readings[3].", show_default=False)] = "",
        prompt: Annotated[bool, typer.Option("--prompt", help="Print the bytes that were sent and received, exactly.")] = False,
        attempt: Annotated[
            int | None, typer.Option(min=0, help="With --prompt: of which attempt; 0 is the last.", show_default="the last")
        ] = None,
        everything: Annotated[bool, typer.Option("--all", help="One row an element, however many there are.")] = False,
        explain: Annotated[
            bool, typer.Option("--explain", help="Beside what each step took, what it might have taken, and where.")
        ] = False,
        html: Annotated[
            Path | None, typer.Option("--html", metavar="FILE", help="Write it as a page: one file for a browser.", show_default=False)
        ] = None,
        as_json: AsJson = False,
    ) -> None:
        """Show a run; or one of its nodes; or, with --prompt, what a model was sent and answered.

        With --html the whole run becomes a page: the answer, each claim beside its evidence, what was withheld and why.
        """
        import asyncio

        from orchestra.cli.looking import Shown, show_run, write_page

        if html is not None:
            if node:
                raise InputError("C019", "--html is about the whole run", hint=f"orchestra runs show {run} --html {html}")
            others = {"--prompt": prompt, "--attempt": attempt is not None, "--all": everything, "--explain": explain, "--json": as_json}
            if other := next((name for name, given in others.items() if given), ""):
                hint = f"orchestra runs show {run} --html {html}"
                raise InputError("C019", f"--html writes a page of the run, and {other} is not for it", hint=hint)
            asyncio.run(write_page(run, html))
            return
        if prompt and not node:
            raise InputError("C019", "--prompt needs a node", hint=f"orchestra runs show {run} NODE --prompt")
        if prompt and as_json:
            raise InputError(
                "C019", "--prompt prints bytes as they are, and no JSON", hint=f"orchestra runs export {run} has them in base64"
            )
        if attempt is not None and not prompt:
            raise InputError("C019", "--attempt is for --prompt", hint=f"orchestra runs show {run} NODE --prompt --attempt {attempt}")
        if explain and node:
            raise InputError("C019", "--explain is about a whole run", hint=f"orchestra runs show {run} --explain")
        if everything and (node or explain):
            said = "a whole run" if node else "what each node took, and --explain shows each step"
            raise InputError("C019", f"--all is about {said}", hint=f"orchestra runs show {run} --all")
        shown = Shown(everything=everything, explain=explain, as_json=as_json)
        asyncio.run(show_run(run, node, (attempt or 0) if prompt else None, shown))

    @runs.command("costs", cls=Verb, rich_help_panel="Look")
    def costs_(
        by: Annotated[
            str,
            typer.Option(
                metavar="KEYS", help="workflow, agent, model, server, day, month, label, status, purpose, run; or several: day,agent."
            ),
        ] = "workflow",
        since: Annotated[
            str | None, typer.Option(metavar="WHEN", help="Only runs that began since 12h, 30d, yesterday, 2026-11-24.", show_default=False)
        ] = None,
        until: Annotated[str | None, typer.Option(metavar="WHEN", help="Only runs that began before that.", show_default=False)] = None,
        workflow: Annotated[str, typer.Option(metavar="NAME", help="Only runs of this workflow or agent.", show_default=False)] = "",
        limit: Annotated[
            int | None, typer.Option("--limit", "-n", min=1, help="How many rows: the dearest, or the latest days.", show_default="all")
        ] = None,
        as_json: AsJson = False,
        as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for a spreadsheet.")] = False,
    ) -> None:
        """Sum up what runs cost: calls, tokens in and out, time, and money where prices are known.

        A run counts with all that it took, on the day on which it began. Calls of which nobody knows the price are not taken to be free.
        """
        import asyncio

        from orchestra.cli.costing import Wanted, show_costs

        if as_json and as_csv:
            raise InputError("C010", "--json and --csv exclude each other", hint="give one of them")
        asyncio.run(show_costs(Wanted(by, since, until, workflow, limit, as_json, as_csv)))

    @runs.command("tail", cls=Verb, rich_help_panel="Look")
    def tail(
        run: Run = "last",
        follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f", help="Go on until the run ends or waits.")] = True,
        as_json: Annotated[bool, typer.Option("--json", help="Print each event as JSON, a line each.")] = False,
    ) -> None:
        """Watch a run, whichever process has it in hand: its events as they come, until it ends or waits for a person."""
        import asyncio

        from orchestra.cli.telling import tail

        asyncio.run(tail(run, follow=follow, as_json=as_json))


def _go_on(runs: typer.Typer) -> None:
    @runs.command("answer", cls=Verb, rich_help_panel="Go on", epilog=CODES)
    def answer(
        context: typer.Context,
        run: Run,
        value: Annotated[
            str | None,
            typer.Argument(help="The answer, @FILE, or - for stdin; left out, it is asked for at the terminal.", show_default=False),
        ] = None,
        node: Annotated[str, typer.Option(help="Which question, where several are open.", show_default=False)] = "",
        decline: Annotated[
            str | None,
            typer.Option("--decline", metavar="REASON", help="Why nobody answers; the node is withheld.", show_default=False),
        ] = None,
        gave: Annotated[
            str | None,
            typer.Option(
                "--gave", metavar="VALUE", help="Of a call in doubt: it happened, and gave this; or @FILE, or -.", show_default=False
            ),
        ] = None,
        by: By = "",
        later: Annotated[bool, typer.Option("--later", help="Only put the answer down; who resumes the run takes it.")] = False,
        as_json: AsJson = False,
        stream: Stream = False,
        live: Live = False,
    ) -> None:
        """Answer what a run asks, or say why nobody does, and go on with it.

        A text is taken as it is where the question takes a text; an answer of another type is written as JSON. It may stand in a file
        (@answer.json), also where it is null and the question takes a text or null; @@ begins a text with one @.
        """
        from orchestra.cli import going
        from orchestra.cli.signals import carry_out
        from orchestra.cli.watching import Manner

        if later and live:
            raise InputError("C010", "--live follows the run, and --later does not", hint="leave one of them out")
        manner = Manner.of(as_json=as_json, stream=stream, live=live)
        given = going.Answer(run, value, node, by, later, decline, gave)
        _leave(carry_out(partial(going.answer, opener(context), given, manner)))

    @runs.command("resume", cls=Verb, rich_help_panel="Go on", epilog=CODES)
    def resume(
        context: typer.Context,
        run: Annotated[str, typer.Argument(help="A run's id, the beginning of one, or `last`.", show_default=False)] = "",
        everything: Annotated[bool, typer.Option("--all", help="Every run that was interrupted; prints a line each.")] = False,
        by: By = "",
        as_json: AsJson = False,
        stream: Stream = False,
        live: Live = False,
    ) -> None:
        """Go on with a run that was interrupted. Calls that came to an end are not made again."""
        from orchestra.cli import going
        from orchestra.cli.signals import carry_out
        from orchestra.cli.watching import Manner

        if everything == bool(run):
            raise InputError("C010", "which run?", hint="orchestra runs resume last, or orchestra runs resume --all")
        if everything and (stream or live):
            said = f"--{'stream' if stream else 'live'}"
            raise InputError("C010", f"{said} is for one run", hint=f"orchestra runs resume RUN {said}, or --all --json")
        if everything:
            _leave(carry_out(lambda stop: going.resume_all(opener(context), by, as_json=as_json, stop=stop)))
        else:
            _leave(carry_out(partial(going.resume, opener(context), run, by, Manner.of(as_json=as_json, stream=stream, live=live))))

    @runs.command("cancel", cls=Verb, rich_help_panel="Go on")
    def cancel(context: typer.Context, run: Run, by: By = "", as_json: AsJson = False) -> None:
        """Ask a run to end, whichever process has it in hand. What it came to so far stays in the journal."""
        import asyncio

        from orchestra.cli import going

        _leave(asyncio.run(going.cancel(opener(context), run, by, as_json=as_json)))


def _make_again(runs: typer.Typer) -> None:
    @runs.command("fork", cls=Verb, rich_help_panel="Make again", epilog=CODES)
    def fork(
        context: typer.Context,
        run: Run,
        workflow: Annotated[
            str, typer.Option(metavar="FILE|NAME", help="Another workflow than the run's own.", show_default="the run's, as it is today")
        ] = "",
        inputs: Annotated[
            list[str] | None,
            typer.Option("--input", "-i", metavar="KEY=VALUE", help="An input instead of the run's, as for orchestra run."),
        ] = None,
        budget: Annotated[
            list[str] | None,
            typer.Option(metavar="LIMITS", help="Such as tokens=20000,seconds=60; other limits of the workflow stay."),
        ] = None,
        fleet: Annotated[str | None, typer.Option(help="A name in configs/, or a path.", show_default="as configured")] = None,
        values: Annotated[
            list[str] | None,
            typer.Option(
                "--set",
                metavar="NODE=VALUE",
                help="What a node gives, whatever it would come to: node=value, node=@file, @all.json, or - for JSON on stdin.",
            ),
        ] = None,
        by: By = "",
        effects: Annotated[bool, typer.Option("--again", help="Do again what the run did in the world, such as a payment.")] = False,
        as_json: AsJson = False,
        stream: Stream = False,
        live: Live = False,
    ) -> None:
        """Run a run's workflow again as it is today: edit one prompt, and only what changed is called anew.

        This is also how a failed run goes on: what it did in the world is recalled, and not done again without --again.
        With --set a person says what a node gives: nothing is called for it, and what depends on it is made anew.
        Says which nodes changed and why, runs, and says how many calls were recalled from the old run and how many were made anew.
        """
        from orchestra.cli import comparing
        from orchestra.cli.limits import read_budget
        from orchestra.cli.signals import carry_out
        from orchestra.cli.watching import Manner

        manner = Manner.of(as_json=as_json, stream=stream, live=live)
        if by and not values:
            raise InputError("C010", "--by says who gives a value, and none is given", hint="give one with --set NODE=VALUE")
        again = comparing.Again(run, workflow, inputs or (), read_budget(budget or ()), fleet, effects, values or (), by)
        _leave(carry_out(partial(comparing.fork, opener(context), again, manner)))

    @runs.command("replay", cls=Verb, rich_help_panel="Make again")
    def replay(context: typer.Context, run: Run = "last", as_json: AsJson = False) -> None:
        """Hold a run's events against what the engine decides today; nothing is called. Exits with 1 at the first difference."""
        import asyncio

        from orchestra.cli import comparing

        _leave(asyncio.run(comparing.replay(opener(context), run, as_json=as_json)))

    @runs.command("diff", cls=Verb, rich_help_panel="Make again")
    def diff(
        one: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, the beginning of one, or `last`.", show_default=False)],
        two: Annotated[str, typer.Argument(metavar="OTHER", help="Another run.", show_default=False)],
        as_json: AsJson = False,
    ) -> None:
        """Show the nodes that ended otherwise in two runs, side by side. Exits with 1 where there are some."""
        import asyncio

        from orchestra.cli import comparing

        _leave(asyncio.run(comparing.diff(one, two, as_json=as_json)))


def _keep(runs: typer.Typer) -> None:
    @runs.command("export", cls=Verb, rich_help_panel="Keep")
    def export(
        run: Run = "last",
        output: Annotated[Path | None, typer.Option("--output", "-o", help="A file.", show_default="stdout")] = None,
        blobs: Annotated[bool, typer.Option("--blobs/--no-blobs", help="With the exact bytes that were sent and received.")] = True,
    ) -> None:
        """Write a run as lines of JSON: its events, then the blobs that they name, in base64 under their digests."""
        import asyncio

        from orchestra.cli import keeping

        asyncio.run(keeping.export(run, output, blobs=blobs))

    @runs.command("gc", cls=Verb, rich_help_panel="Keep")
    def gc(
        older: Annotated[
            str | None, typer.Option(metavar="AGE", help="That ended so long ago: 12h, 30d, 2w.", show_default="the setting `retention`")
        ] = None,
        keep: Annotated[int | None, typer.Option(min=0, metavar="N", help="Spare the newest N ended runs.", show_default=False)] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list them.")] = False,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
        as_json: AsJson = False,
    ) -> None:
        """Delete ended runs that are old, and give their room back to the disk.

        Runs that are under way, wait or were interrupted stay, and so do those whose messages in the outbox are not delivered.
        """
        import asyncio

        from orchestra.cli import keeping

        wanted = keeping.Sweep.of(older, keep)
        asyncio.run(keeping.sweep(wanted, dry_run=dry_run, sure=yes, as_json=as_json))
