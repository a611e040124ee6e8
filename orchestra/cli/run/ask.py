"""`orchestra ask` and `orchestra plan`: a request in a person's words, planned by the router; carried out, or only shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestra.cli.context import opener, settings
from orchestra.cli.options import Fleet, Live, Tagged
from orchestra.cli.typer_adapter import add, leave

if TYPE_CHECKING:
    from orchestra.cli.run.plan import Drafting

WIDTH = 100
"""Elements of a list that a step of a plan may go through at most."""
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


@dataclass(frozen=True, slots=True)
class Planned:
    """A request, and how it is planned, as it was typed."""

    request: Annotated[str, typer.Argument(metavar="REQUEST", help="What is wanted, in your words.", show_default=False)]
    documents: Annotated[
        list[Path] | None,
        typer.Option("--documents", "-d", metavar="PATH", help="A folder of .txt and .md files, or one of them.", show_default=False),
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
        typer.Option("--only", metavar="NAME", help="An agent, a tool or a workflow that may be used.", show_default="all without effects"),
    ] = None
    router: Annotated[str, typer.Option(metavar="AGENT", help="The agent that plans.")] = "router"
    steps: Annotated[int, typer.Option(min=1, max=100, help="Steps of a plan at most.")] = 8
    repairs: Annotated[int, typer.Option(min=0, max=10, help="How often a line that was refused is handed back.")] = 2
    whole: Annotated[bool, typer.Option("--whole", help="Let the router write the whole plan at once, not line by line.")] = False
    free: Annotated[
        bool,
        typer.Option("--free", help="Let it state texts of its own, also for calls with effects; else they are pieces of the request."),
    ] = False
    ungrounded: Annotated[
        bool, typer.Option("--ungrounded", help="Let a plan begin without what is brought along; else its first step reads some of it.")
    ] = False
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Plan what can be done, even where the router finds that nothing here serves the request.")
    ] = False
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Take a plan that has served a request like this one.")] = True
    larger: Annotated[str | None, typer.Option(metavar="AGENT", help="The agent that goes on when the repairs are used up.")] = None
    votes: Annotated[int, typer.Option(min=1, max=16, help="Plans that are sampled; the one that most of them agree on is taken.")] = 1

    def drafting(self, replans: int = 0, *, confirm: bool = True) -> Drafting:
        """What is to be planned. Raises `InputError` C010, C013 or C014 for values that cannot be read, R022 for an empty request."""
        from orchestra.app.planning import Wish, worded
        from orchestra.cli.run.plan import Drafting, from_files, values
        from orchestra.workflows.model import PlanLimits

        wish = Wish(
            only=tuple(self.only or ()),
            router=self.router,
            limits=PlanLimits(steps=self.steps, width=WIDTH),
            repairs=self.repairs,
            stepwise=not self.whole,
            copied=not self.free,
            literals=self.free,
            confirm=confirm,
            grounded=not self.ungrounded,
            anyway=self.anyway,
            cache=self.cache,
            larger=self.larger,
            votes=self.votes,
            replans=replans,
            hearsay=from_files(self.inputs or ()),
        )
        return Drafting(worded(self.request), values(self.documents or (), self.inputs or ()), wish)


@dataclass(frozen=True, slots=True)
class Asking(Planned):
    """A request that is carried out, and how that is shown."""

    replans: Annotated[int, typer.Option(min=0, max=10, help="How often another plan may follow one of which a step failed.")] = 0
    budget: Annotated[
        list[str] | None, typer.Option(metavar="LIMITS", help="Of the run, its planning included: tokens=20000,seconds=60.")
    ] = None
    tags: Tagged = None
    yes: Annotated[bool, typer.Option("--yes", help="Make calls with effects without asking a person before.")] = False
    explain: Annotated[bool, typer.Option("--explain", help="Show what each step took beside what it might have taken.")] = False
    fleet: Fleet = None
    as_json: Json = False
    live: Live = False


@dataclass(frozen=True, slots=True)
class Planning(Planned):
    """A request that is only planned, and how the plan is shown."""

    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the plan as a workflow file.", show_default=False)] = None
    force: Annotated[bool, typer.Option("--force", help="Write it over a file that is there.")] = False
    fleet: Fleet = None
    as_json: Json = False


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    add(app, ask, panel="Run")
    add(app, plan, panel="Run")


def ask(context: typer.Context, asked: Asking) -> None:
    """Answer a request: the router plans which agents and tools to use, and the plan runs while it is being written.

    A plan uses only what has no effects, unless --only names it; calls with effects are made after a person has said yes to them, or
    with --yes. Its lines stand on stderr, each as it is accepted; the answer, with what it rests on, on stdout.

    Exits as `orchestra run` does, and with 3 where the router gave no plan.
    """
    from orchestra.cli.budget_option import read_budget
    from orchestra.cli.run import plan as plan_module
    from orchestra.cli.run.watch import Manner
    from orchestra.cli.signals import carry_out
    from orchestra.core.tags import typed

    manner = Manner.of(as_json=asked.as_json, stream=False, live=asked.live)
    wanted = asked.drafting(asked.replans, confirm=not asked.yes)
    chosen = settings(fleet=asked.fleet)
    wanted = replace(wanted, budget=read_budget(asked.budget or ()), explain=asked.explain, tags=typed(asked.tags or ()))
    leave(carry_out(partial(plan_module.ask, opener(context), chosen, wanted, manner)))


def plan(context: typer.Context, asked: Planning) -> None:
    """Show how a request would be answered: the plan, and what it may cost at most. Only the router is asked; nothing else runs.

    Exits with 3 where the router gave no plan, and with 1 where a step of it would be refused.
    """
    from orchestra.cli.run import plan as plan_module
    from orchestra.cli.signals import carry_out

    wanted = replace(asked.drafting(), save=asked.save)
    if asked.save is not None and not asked.force:
        plan_module.free(asked.save)
    leave(carry_out(partial(plan_module.explain, opener(context), settings(fleet=asked.fleet), wanted, asked.as_json)))
