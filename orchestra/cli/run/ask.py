"""`orchestra ask` and `orchestra plan`: a request in a person's words, planned by the router; carried out, or only shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestra.cli.context import get_opener, load_settings
from orchestra.cli.options import FleetOption, LiveOption, TagsOption
from orchestra.cli.typer_adapter import add_command, exit_with

if TYPE_CHECKING:
    from orchestra.cli.run.plan import AskRequest

MAX_WIDTH = 100
"""Elements of a list that a step of a plan may go through at most."""
JsonOption = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


@dataclass(frozen=True, slots=True)
class PlannerArguments:
    """A request, and how it is planned, as it was typed."""

    request: Annotated[
        str, typer.Argument(metavar="REQUEST", help="What is wanted, in your words.", show_default=False)
    ]
    documents: Annotated[
        list[Path] | None,
        typer.Option(
            "--documents",
            "-d",
            metavar="PATH",
            help="A folder of .txt and .md files, or one of them.",
            show_default=False,
        ),
    ] = None
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="KEY=VALUE",
            help="Another value at hand: a text, JSON, key=@file.txt or key=@file.json.",
        ),
    ] = None
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="NAME",
            help="An agent, a tool or a workflow that may be used.",
            show_default="all without effects",
        ),
    ] = None
    router: Annotated[str, typer.Option(metavar="AGENT", help="The agent that plans.")] = "router"
    steps: Annotated[int, typer.Option(min=1, max=100, help="Steps of a plan at most.")] = 8
    repairs: Annotated[int, typer.Option(min=0, max=10, help="How often a line that was refused is handed back.")] = 2
    one_shot: Annotated[
        bool, typer.Option("--one-shot", help="Let the router write the whole plan at once, not line by line.")
    ] = False
    allow_literals: Annotated[
        bool,
        typer.Option(
            "--allow-literals",
            help="Let it state texts of its own, also for calls with effects; else they are pieces of the request.",
        ),
    ] = False
    no_grounding: Annotated[
        bool,
        typer.Option(
            "--no-grounding",
            help="Let a plan begin without what is brought along; else its first step reads some of it.",
        ),
    ] = False
    partial: Annotated[
        bool,
        typer.Option(
            "--partial", help="Plan what can be done, even where the router finds that nothing here serves the request."
        ),
    ] = False
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Take a plan that has served a request like this one.")
    ] = True
    larger: Annotated[
        str | None, typer.Option(metavar="AGENT", help="The agent that goes on when the repairs are used up.")
    ] = None
    votes: Annotated[
        int, typer.Option(min=1, max=16, help="Plans that are sampled; the one that most of them agree on is taken.")
    ] = 1

    def to_request(self, replans: int = 0, *, confirm: bool = True) -> AskRequest:
        """What is to be planned. Raises `InputError` C010, C013 or C014 for values that cannot be read, R022 for an empty request."""
        from orchestra.app.planning import PlanOptions, require_request
        from orchestra.cli.run.plan import AskRequest, keys_from_files, read_values
        from orchestra.workflows.model import PlanLimits

        options = PlanOptions(
            only=tuple(self.only or ()),
            router=self.router,
            limits=PlanLimits(steps=self.steps, width=MAX_WIDTH),
            repairs=self.repairs,
            stepwise=not self.one_shot,
            copied=not self.allow_literals,
            literals=self.allow_literals,
            confirm=confirm,
            grounded=not self.no_grounding,
            anyway=self.partial,
            cache=self.cache,
            larger=self.larger,
            votes=self.votes,
            replans=replans,
            hearsay=keys_from_files(self.inputs or ()),
        )
        return AskRequest(require_request(self.request), read_values(self.documents or (), self.inputs or ()), options)


@dataclass(frozen=True, slots=True)
class AskArguments(PlannerArguments):
    """A request that is carried out, and how that is shown."""

    replans: Annotated[
        int, typer.Option(min=0, max=10, help="How often another plan may follow one of which a step failed.")
    ] = 0
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="LIMITS", help="Of the run, its planning included: tokens=20000,seconds=60."),
    ] = None
    tags: TagsOption = None
    yes: Annotated[bool, typer.Option("--yes", help="Make calls with effects without asking a person before.")] = False
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what each step took beside what it might have taken.")
    ] = False
    fleet: FleetOption = None
    as_json: JsonOption = False
    live: LiveOption = False


@dataclass(frozen=True, slots=True)
class PlanArguments(PlannerArguments):
    """A request that is only planned, and how the plan is shown."""

    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the plan as a workflow file.", show_default=False)
    ] = None
    force: Annotated[bool, typer.Option("--force", help="Write it over a file that is there.")] = False
    fleet: FleetOption = None
    as_json: JsonOption = False


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    add_command(app, ask, panel="Run")
    add_command(app, plan, panel="Run")


def ask(context: typer.Context, arguments: AskArguments) -> None:
    """Answer a request: the router plans which agents and tools to use, and the plan runs while it is being written.

    A plan uses only what has no effects, unless --only names it; calls with effects are made after a person has said yes to them, or
    with --yes. Its lines stand on stderr, each as it is accepted; the answer, with what it rests on, on stdout.

    Exits as `orchestra run` does, and with 3 where the router gave no plan.
    """
    from orchestra.cli.budget_option import parse_budget
    from orchestra.cli.run import plan as plan_module
    from orchestra.cli.run.watch import DisplayOptions
    from orchestra.cli.signals import run_with_signals
    from orchestra.core.tags import parse_tags

    display = DisplayOptions.from_flags(as_json=arguments.as_json, stream=False, live=arguments.live)
    wanted = arguments.to_request(arguments.replans, confirm=not arguments.yes)
    chosen = load_settings(fleet=arguments.fleet)
    wanted = replace(
        wanted,
        budget=parse_budget(arguments.budget or ()),
        explain=arguments.explain,
        tags=parse_tags(arguments.tags or ()),
    )
    exit_with(run_with_signals(partial(plan_module.run_request, get_opener(context), chosen, wanted, display)))


def plan(context: typer.Context, arguments: PlanArguments) -> None:
    """Show how a request would be answered: the plan, and what it may cost at most. Only the router is asked; nothing else runs.

    Exits with 3 where the router gave no plan, and with 1 where a step of it would be refused.
    """
    from orchestra.cli.run import plan as plan_module
    from orchestra.cli.signals import run_with_signals

    wanted = replace(arguments.to_request(), save=arguments.save)
    if arguments.save is not None and not arguments.force:
        plan_module.refuse_existing(arguments.save)
    exit_with(
        run_with_signals(
            partial(
                plan_module.plan_request,
                get_opener(context),
                load_settings(fleet=arguments.fleet),
                wanted,
                arguments.as_json,
            )
        )
    )
