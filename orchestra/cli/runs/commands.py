"""`orchestra runs`: inspect, answer, resume, repeat, compare, export and delete runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestra.cli.context import get_opener
from orchestra.cli.options import (
    BudgetOption,
    FleetOption,
    JsonOption,
    LiveOption,
    SinceOption,
    StreamOption,
    TagFilterOption,
    UntilOption,
)
from orchestra.cli.runs import costs
from orchestra.cli.typer_adapter import OrchestraGroup, add_command, exit_with
from orchestra.core.errors import InputError

if TYPE_CHECKING:
    from orchestra.app.run_status import RunListQuery
    from orchestra.cli.run.watch import DisplayOptions
    from orchestra.cli.runs.fork import ForkManyRequest
    from orchestra.workflows.model import Budget as BudgetLimits

RunArgument = Annotated[str, typer.Argument(help="A run id, a unique prefix of one, or `last`.", show_default=False)]
ByOption = Annotated[str, typer.Option(metavar="NAME", help="Your name, for the journal.", show_default=False)]
EXIT_CODE_HELP = "Exits as `orchestra run` does."


@dataclass(frozen=True, slots=True)
class ListArguments:
    """The arguments of `orchestra runs list`."""

    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The maximum number of runs, newest first.")] = 20
    status: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A,B",
            help="Only runs with this status: running, waiting, interrupted, done, failed, …",
            show_default=False,
        ),
    ] = None
    workflow: Annotated[
        str, typer.Option(metavar="NAME", help="Only runs of this workflow or agent.", show_default=False)
    ] = ""
    tags: TagFilterOption = None
    since: SinceOption = None
    until: UntilOption = None
    before: Annotated[
        str,
        typer.Option(metavar="RUN", help="Only runs after this one in the list, for paging.", show_default=False),
    ] = ""
    as_json: JsonOption = False

    @property
    def run_filter(self) -> RunListQuery:
        """The query for the journal. Raises `InputError` C010 for an invalid status or time, E040 for an invalid
        tag.
        """
        from orchestra.app.run_status import RunListQuery, check_statuses
        from orchestra.cli.options import parse_period, split_names
        from orchestra.core.tags import parse_tags

        statuses = check_statuses(split_names(",".join(self.status or ())))
        return RunListQuery(
            self.limit,
            self.workflow,
            statuses,
            parse_tags(self.tags or ()),
            *parse_period(self.since, self.until),
            self.before,
        )


@dataclass(frozen=True, slots=True)
class ShowArguments:
    """The arguments of `orchestra runs show`."""

    run: RunArgument = "last"
    node: Annotated[str, typer.Argument(help="The path of a node, such as readings[3].", show_default=False)] = ""
    prompt: Annotated[bool, typer.Option("--prompt", help="Print the exact bytes sent and received.")] = False
    attempt: Annotated[
        int | None,
        typer.Option(min=0, help="With --prompt: the number of the attempt; 0 is the last.", show_default="the last"),
    ] = None
    everything: Annotated[bool, typer.Option("--all", help="Show one row for each element of a list.")] = False
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show the upper bound and the servers of each step beside the actual cost."),
    ] = False
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write the run as one HTML file.", show_default=False),
    ] = None
    as_json: JsonOption = False


@dataclass(frozen=True, slots=True)
class AnswerArguments:
    """The arguments of `orchestra runs answer`."""

    run: RunArgument
    value: Annotated[
        str | None,
        typer.Argument(help="The answer, @FILE, or - for stdin. Without it, the terminal asks.", show_default=False),
    ] = None
    node: Annotated[str, typer.Option(help="The node of the question, if several are open.", show_default=False)] = ""
    to: Annotated[
        str,
        typer.Option(
            metavar="WORD",
            help="The token shown with the question, so that no other question is answered.",
            show_default=False,
        ),
    ] = ""
    decline: Annotated[
        str | None,
        typer.Option(
            "--decline",
            metavar="REASON",
            help="Decline to answer, with this reason; the output of the node is withheld.",
            show_default=False,
        ),
    ] = None
    gave: Annotated[
        str | None,
        typer.Option(
            "--gave",
            metavar="VALUE",
            help="The result of a call of unknown outcome that did happen; or @FILE, or -.",
            show_default=False,
        ),
    ] = None
    by: ByOption = ""
    later: Annotated[
        bool, typer.Option("--later", help="Only store the answer; the run reads it when it is resumed.")
    ] = False


@dataclass(frozen=True, slots=True)
class ForkArguments:
    """The arguments of `orchestra runs fork`."""

    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN...", help="Run ids, unique prefixes of ids, or `last`.", show_default=False),
    ] = None
    failed: Annotated[
        bool, typer.Option("--failed", help="All failed runs that were not repeated yet; prints one line for each.")
    ] = False
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help="With --failed: only runs since 12h, 30d, yesterday, 2026-11-24.", show_default=False
        ),
    ] = None
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="With --failed: only runs before this time.", show_default=False)
    ] = None
    workflow: Annotated[
        str,
        typer.Option(
            metavar="FILE|NAME",
            help="A workflow that replaces that of the run.",
            show_default="the current version of the run's workflow",
        ),
    ] = ""
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", metavar="KEY=VALUE", help="An input that replaces that of the run, as for orchestra run."
        ),
    ] = None
    budget: BudgetOption = None
    fleet: FleetOption = None
    node_values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NODE=VALUE",
            help="Override the output of a node: node=value, node=@file, @all.json, or - for JSON on stdin.",
        ),
    ] = None
    unset: Annotated[
        list[str] | None,
        typer.Option("--unset", metavar="NODE", help="Remove the override of this node."),
    ] = None
    by: ByOption = ""
    repeat_effects: Annotated[bool, typer.Option("--again", help="Repeat calls with effects, such as a payment.")] = (
        False
    )

    def to_fork_many(self, display: DisplayArguments, limits: BudgetLimits | None) -> ForkManyRequest | None:
        """The request for several or failed runs; None for a single run. Raises `InputError` C010."""
        from orchestra.cli.options import parse_period
        from orchestra.cli.runs.fork import ForkManyRequest

        if not self.failed and (self.since or self.until):
            raise InputError(
                "C010", "--since and --until require --failed", hint="orchestra runs fork --failed --since yesterday"
            )
        if not self.failed and not self.runs:
            raise InputError(
                "C010", "which run?", hint="orchestra runs fork last, or orchestra runs fork --failed --since yesterday"
            )
        if not self.failed and len(self.runs or ()) == 1:
            return None
        options = {
            "--workflow": self.workflow,
            "--input": self.inputs,
            "--set": self.node_values,
            "--unset": self.unset,
            "--by": self.by,
        }
        if option := next(
            (name for name, value in {**options, "--stream": display.stream, "--live": display.live}.items() if value),
            "",
        ):
            raise InputError("C010", f"{option} requires a single run", hint=f"orchestra runs fork RUN {option} ...")
        when = parse_period(self.since, self.until) if self.failed else None
        return ForkManyRequest(self.runs or (), when, limits, self.fleet, self.repeat_effects)


@dataclass(frozen=True, slots=True)
class DisplayArguments:
    """How a resumed run is shown."""

    as_json: JsonOption = False
    stream: StreamOption = False
    live: LiveOption = False

    @property
    def to_options(self) -> DisplayOptions:
        """Converts the flags. Raises `InputError` C010 for conflicting flags."""
        from orchestra.cli.run.watch import DisplayOptions

        return DisplayOptions.from_flags(as_json=self.as_json, stream=self.stream, live=self.live)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    runs = typer.Typer(
        cls=OrchestraGroup, no_args_is_help=True, help="Inspect, answer, resume, repeat, export and delete runs."
    )
    add_command(runs, list_, "list", panel="Inspect")
    add_command(runs, show, panel="Inspect")
    costs.register(runs)
    add_command(runs, tail, panel="Inspect")
    add_command(runs, answer, panel="Continue", epilog=EXIT_CODE_HELP)
    add_command(runs, resume, panel="Continue", epilog=EXIT_CODE_HELP)
    add_command(runs, cancel, panel="Continue")
    add_command(runs, fork, panel="Repeat", epilog=EXIT_CODE_HELP)
    add_command(runs, replay, panel="Repeat")
    add_command(runs, diff, panel="Repeat")
    add_command(runs, export, panel="Store")
    add_command(runs, import_, "import", panel="Store")
    add_command(runs, delete, panel="Store")
    add_command(runs, gc, panel="Store")
    add_command(runs, recover, panel="Store")
    app.add_typer(runs, name="runs", rich_help_panel="Inspect runs")


def list_(arguments: ListArguments) -> None:
    """List the latest runs. A `waiting` run waits for a person; the process of an `interrupted` run has ended.

    --json adds the tags of each run, and the code, message and node of its error.
    """
    import asyncio

    from orchestra.cli.runs.find import list_runs

    asyncio.run(list_runs(arguments.run_filter, as_json=arguments.as_json))


def show(arguments: ShowArguments) -> None:
    """Show a run or one of its nodes; with --prompt, what a model received and answered.

    With --html, the whole run becomes a page: the answer, each claim beside its evidence, and withheld outputs with
    reasons.
    """
    import asyncio

    from orchestra.cli.runs.show import ShowOptions, show_run, write_page

    if arguments.html is not None:
        _check_page(arguments, arguments.html)
        asyncio.run(write_page(arguments.run, arguments.html))
        return
    _check_show_options(arguments)
    show_options = ShowOptions(everything=arguments.everything, explain=arguments.explain, as_json=arguments.as_json)
    asyncio.run(
        show_run(arguments.run, arguments.node, (arguments.attempt or 0) if arguments.prompt else None, show_options)
    )


def _check_page(arguments: ShowArguments, html: Path) -> None:
    """Raises `InputError` C019 for options without an effect on a page."""
    hint = f"orchestra runs show {arguments.run} --html {html}"
    if arguments.node:
        raise InputError("C019", "--html shows the whole run", hint=hint)
    options = {
        "--prompt": arguments.prompt,
        "--attempt": arguments.attempt is not None,
        "--all": arguments.everything,
        "--explain": arguments.explain,
        "--json": arguments.as_json,
    }
    if option := next((name for name, value in options.items() if value), ""):
        raise InputError("C019", f"--html writes a page of the run, without {option}", hint=hint)


def _check_show_options(arguments: ShowArguments) -> None:
    """Raises `InputError` C019 for options without an effect on what is shown."""
    again = f"orchestra runs show {arguments.run}"
    if arguments.prompt and not arguments.node:
        raise InputError("C019", "--prompt needs a node", hint=f"{again} NODE --prompt")
    if arguments.prompt and arguments.as_json:
        hint = f"orchestra runs export {arguments.run} has them in base64"
        raise InputError("C019", "--prompt prints raw bytes, not JSON", hint=hint)
    if arguments.attempt is not None and not arguments.prompt:
        raise InputError(
            "C019", "--attempt requires --prompt", hint=f"{again} NODE --prompt --attempt {arguments.attempt}"
        )
    if arguments.explain and arguments.node:
        raise InputError("C019", "--explain shows a whole run", hint=f"{again} --explain")
    if arguments.everything and (arguments.node or arguments.explain):
        explanation = "a whole run" if arguments.node else "what each node took; --explain shows each step"
        raise InputError("C019", f"--all shows {explanation}", hint=f"{again} --all")


def tail(
    run: RunArgument = "last",
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", "-f", help="Follow the run until it ends or waits.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
) -> None:
    """Follow the events of a run in any process, until it ends or waits for a person."""
    import asyncio

    from orchestra.cli.runs.tail import tail

    asyncio.run(tail(run, follow=follow, as_json=as_json))


def answer(context: typer.Context, arguments: AnswerArguments, display: DisplayArguments) -> None:
    """Answer the question of a run, or decline to answer, and continue the run.

    A text answers a question for text as it is; other answers are JSON. An answer may be in a file (@answer.json), also
    null for a question that takes text or null; @@ means a leading @. The command shown with a question answers
    only that question. Without --to, the answer is accepted only if it is unambiguous: the run (with `last`, the only
    waiting one), or its --node, has never asked another question.
    """
    from orchestra.cli.runs import resume as resume_module
    from orchestra.cli.signals import run_with_signals

    if arguments.later and display.live:
        raise InputError("C010", "--live follows the run, but --later does not", hint="use one of them")
    manner = display.to_options
    answer_request = resume_module.AnswerRequest(
        arguments.run,
        arguments.value,
        arguments.node,
        arguments.to,
        arguments.by,
        arguments.later,
        arguments.decline,
        arguments.gave,
    )
    exit_with(run_with_signals(partial(resume_module.answer, get_opener(context), answer_request, manner)))


def resume(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="A run id, a unique prefix of one, or `last`.", show_default=False)] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Resume all interrupted or answered runs; prints one line for each.")
    ] = False,
    by: ByOption = "",
    *,
    display: DisplayArguments,
) -> None:
    """Continue an interrupted run. Completed calls are not repeated."""
    from orchestra.cli.runs import resume as resume_module
    from orchestra.cli.signals import run_with_signals

    if everything == bool(run):
        raise InputError("C010", "which run?", hint="orchestra runs resume last, or orchestra runs resume --all")
    if everything and (display.stream or display.live):
        option = f"--{'stream' if display.stream else 'live'}"
        raise InputError(
            "C010", f"{option} requires a single run", hint=f"orchestra runs resume RUN {option}, or --all --json"
        )
    if everything:
        exit_with(
            run_with_signals(
                lambda stop: resume_module.resume_all(get_opener(context), by, as_json=display.as_json, stop=stop)
            )
        )
    else:
        exit_with(run_with_signals(partial(resume_module.resume, get_opener(context), run, by, display.to_options)))


def cancel(context: typer.Context, run: RunArgument, by: ByOption = "", as_json: JsonOption = False) -> None:
    """Ask a run in any process to end. Its results so far stay in the journal."""
    import asyncio

    from orchestra.cli.runs import resume as resume_module

    exit_with(asyncio.run(resume_module.cancel(get_opener(context), run, by, as_json=as_json)))


def fork(context: typer.Context, arguments: ForkArguments, display: DisplayArguments) -> None:
    """Run a workflow again in its current version with the inputs of a run: only what changed is called again.

    This also continues a failed run: its calls with effects are recalled, and not repeated without --again. With --set,
    a person overrides the output of a node: nothing is called for it, and dependent nodes run again. The command shows
    the changed nodes with reasons, runs, and shows how many calls were recalled and how many were made.

    For several runs it shows the end of each, and exits with 1 if one failed. --failed leaves out runs that were
    already repeated, by any command; an interrupted fork is continued. Ctrl-C releases the forks.
    """
    from orchestra.cli.options import parse_budget
    from orchestra.cli.runs import fork as fork_module
    from orchestra.cli.signals import run_with_signals

    manner, limits = display.to_options, parse_budget(arguments.budget or ())
    if (fork_request := arguments.to_fork_many(display, limits)) is not None:
        from orchestra.cli.runs.fork import fork_all

        exit_with(run_with_signals(lambda _: fork_all(get_opener(context), fork_request, as_json=display.as_json)))
        return
    if arguments.by and not arguments.node_values:
        raise InputError("C010", "--by is the author of --set, which is missing", hint="give one with --set NODE=VALUE")
    again = fork_module.ForkRequest(
        run="".join(arguments.runs or ()),  # a single run
        workflow=arguments.workflow,
        inputs=arguments.inputs or (),
        budget=limits,
        fleet=arguments.fleet,
        repeat_effects=arguments.repeat_effects,
        node_values=arguments.node_values or (),
        unset=arguments.unset or (),
        by=arguments.by,
    )
    exit_with(run_with_signals(partial(fork_module.fork, get_opener(context), again, manner)))


def replay(context: typer.Context, run: RunArgument = "last", as_json: JsonOption = False) -> None:
    """Compare the events of a run with the current decisions of the engine; nothing is called. Exits with 1 at the
    first difference.
    """
    import asyncio

    from orchestra.cli.runs import fork as fork_module

    exit_with(asyncio.run(fork_module.replay(get_opener(context), run, as_json=as_json)))


def diff(
    one: Annotated[
        str, typer.Argument(metavar="RUN", help="A run id, a unique prefix of one, or `last`.", show_default=False)
    ],
    two: Annotated[str, typer.Argument(metavar="OTHER", help="The run to compare with.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Show the nodes with different outcomes in two runs side by side. Exits with 1 if there are any."""
    import asyncio

    from orchestra.cli.runs import fork as fork_module

    exit_with(asyncio.run(fork_module.diff(one, two, as_json=as_json)))


def export(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN...", help="Run ids, unique prefixes of ids, or `last`.", show_default="last"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The output file.", show_default="stdout")
    ] = None,
    blobs: Annotated[
        bool, typer.Option("--blobs/--no-blobs", help="Include the exact bytes sent and received.")
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON summary if --output is given; stdout is JSON in any case.")
    ] = False,
) -> None:
    """Write runs as lines of JSON: the events of each run, then the referenced blobs in base64 with their digests."""
    import asyncio

    from orchestra.cli.runs import export as export_module

    asyncio.run(export_module.export(runs or ["last"], output, blobs=blobs, as_json=as_json))


def import_(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Files written by `orchestra runs export`.", show_default=False),
    ],
    as_json: JsonOption = False,
) -> None:
    """Import exported runs unchanged into the journal, to restore them or to move them to another journal.

    An unfinished run waits here or is interrupted, and can be continued. A run that exists already is not changed.
    """
    import asyncio

    from orchestra.cli.runs import export as import_module

    asyncio.run(import_module.import_runs(files, as_json=as_json))


def delete(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN...", help="Run ids, unique prefixes of ids, or `last`.", show_default=False),
    ] = None,
    tags: Annotated[
        list[str] | None,
        typer.Option(
            "--tag", metavar="NAME=VALUE", help="Delete all runs with this tag: customer=42.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be deleted, and the runs with copies of it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete runs of any age with all their data in the journal. Shows which other runs have copies.

    A run that may continue is refused: cancel it first. A run with undelivered messages in the outbox is refused too.
    """
    import asyncio

    from orchestra.cli.runs import export as delete_module
    from orchestra.core.tags import parse_tags

    if not names and not tags:
        raise InputError("C010", "which runs?", hint="orchestra runs delete RUN..., or --tag customer=42")
    asyncio.run(
        delete_module.delete(names or (), parse_tags(tags or ()), dry_run=dry_run, confirmed=yes, as_json=as_json)
    )


def gc(
    older: Annotated[
        str | None,
        typer.Option(
            metavar="AGE", help="The minimum age of ended runs: 12h, 30d, 2w.", show_default="the setting `retention`"
        ),
    ] = None,
    keep: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Keep the newest N ended runs.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the runs.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete old ended runs, and return their disk space.

    Active, waiting and interrupted runs are kept, and so are runs with undelivered messages in the outbox, and runs
    whose results their batch has not written yet.
    """
    import asyncio

    from orchestra.cli.runs import export as export_module

    retention_policy = export_module.RetentionPolicy.from_options(older, keep)
    asyncio.run(export_module.collect_garbage(retention_policy, dry_run=dry_run, confirmed=yes, as_json=as_json))


def recover(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN...",
            help="Runs that may continue after a loss of commits, after you have inspected them.",
            show_default=False,
        ),
    ] = None,
    sure: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Accept that the journal file has lost commits (J025), and continue with the remaining data.

    Runs without an end may have lost their last events. They are listed, and none of them continues (J026) until it is
    named here.
    """
    import asyncio

    from orchestra.cli.runs import resume as recovery

    if runs:
        asyncio.run(recovery.confirm_runs(runs, as_json=as_json))
    else:
        asyncio.run(recovery.accept_commit_loss(confirmed=sure, as_json=as_json))
