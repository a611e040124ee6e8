"""`orchestra ask` and `orchestra plan`: a request in a person's words, planned by the router; carried out, or only shown."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from orchestra.cli.failure import Verb
from orchestra.cli.opening import opener, settings
from orchestra.cli.options import Live

WIDTH = 100
"""Elements of a list that a step of a plan may go through at most."""
Words = Annotated[str, typer.Argument(metavar="REQUEST", help="What is wanted, in your words.", show_default=False)]
Documents = Annotated[
    list[Path] | None,
    typer.Option("--documents", "-d", metavar="PATH", help="A folder of .txt and .md files, or one of them.", show_default=False),
]
Values = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", metavar="KEY=VALUE", help="Another value at hand: a text, JSON, key=@file.txt or key=@file.json."),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="An agent, a tool or a workflow that may be used.", show_default="all without effects"),
]
Router = Annotated[str, typer.Option(metavar="AGENT", help="The agent that plans.")]
Steps = Annotated[int, typer.Option(min=1, max=100, help="Steps of a plan at most.")]
Repairs = Annotated[int, typer.Option(min=0, max=10, help="How often a line that was refused is handed back.")]
Replans = Annotated[int, typer.Option(min=0, max=10, help="How often another plan may follow one of which a step failed.")]
Whole = Annotated[bool, typer.Option("--whole", help="Let the router write the whole plan at once, not line by line.")]
Free = Annotated[bool, typer.Option("--free", help="Let it state texts of its own; else they are pieces of the request.")]
Ungrounded = Annotated[
    bool, typer.Option("--ungrounded", help="Let a plan begin without what is brought along; else its first step reads some of it.")
]
Anyway = Annotated[
    bool, typer.Option("--anyway", help="Plan what can be done, even where the router finds that nothing here serves the request.")
]
Cache = Annotated[bool, typer.Option("--cache/--no-cache", help="Take a plan that has served a request like this one.")]
Larger = Annotated[str | None, typer.Option(metavar="AGENT", help="The agent that goes on when the repairs are used up.")]
Votes = Annotated[int, typer.Option(min=1, max=16, help="Plans that are sampled; the one that most of them agree on is taken.")]
Fleet = Annotated[str | None, typer.Option(help="A name in configs/, or a path.", show_default="as configured")]
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


def register(app: typer.Typer) -> None:
    """Adds the verbs."""

    @app.command(cls=Verb, rich_help_panel="Run")
    def ask(
        context: typer.Context,
        request: Words,
        documents: Documents = None,
        inputs: Values = None,
        only: Only = None,
        router: Router = "router",
        steps: Steps = 8,
        repairs: Repairs = 2,
        whole: Whole = False,
        free: Free = False,
        ungrounded: Ungrounded = False,
        anyway: Anyway = False,
        cache: Cache = True,
        larger: Larger = None,
        votes: Votes = 1,
        replans: Replans = 0,
        budget: Annotated[
            list[str] | None, typer.Option(metavar="LIMITS", help="Of the run, its planning included: tokens=20000,seconds=60.")
        ] = None,
        explain: Annotated[bool, typer.Option("--explain", help="Show what each step took beside what it might have taken.")] = False,
        fleet: Fleet = None,
        as_json: Json = False,
        live: Live = False,
    ) -> None:
        """Answer a request: the router plans which agents and tools to use, and the plan runs while it is being written.

        A plan uses only what has no effects, unless --only names it. Its lines stand on stderr, each as it is accepted; the answer, with
        what it rests on, on stdout.

        Exits as `orchestra run` does, and with 3 where the router gave no plan.
        """
        from orchestra.cli import drafting
        from orchestra.cli.drafting import Drafting
        from orchestra.cli.limits import read_budget
        from orchestra.cli.signals import carry_out
        from orchestra.cli.watching import Manner
        from orchestra.planning import Wish
        from orchestra.workflow.nodes import PlanLimits

        manner = Manner.of(as_json=as_json, stream=False, live=live)
        wish = Wish(
            only=tuple(only or ()),
            router=router,
            limits=PlanLimits(steps=steps, width=WIDTH),
            repairs=repairs,
            stepwise=not whole,
            copied=not free,
            grounded=not ungrounded,
            anyway=anyway,
            cache=cache,
            larger=larger,
            votes=votes,
            replans=replans,
        )
        asked = Drafting(request, drafting.values(documents or (), inputs or ()), wish)
        if code := carry_out(
            partial(drafting.ask, opener(context), settings(fleet=fleet), asked, read_budget(budget or ()), manner, explain)
        ):
            raise typer.Exit(code)

    @app.command(cls=Verb, rich_help_panel="Run")
    def plan(
        context: typer.Context,
        request: Words,
        documents: Documents = None,
        inputs: Values = None,
        only: Only = None,
        router: Router = "router",
        steps: Steps = 8,
        repairs: Repairs = 2,
        whole: Whole = False,
        free: Free = False,
        ungrounded: Ungrounded = False,
        anyway: Anyway = False,
        cache: Cache = True,
        larger: Larger = None,
        votes: Votes = 1,
        save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the plan as a workflow file.", show_default=False)] = None,
        fleet: Fleet = None,
        as_json: Json = False,
    ) -> None:
        """Show how a request would be answered: the plan, and what it may cost at most. Only the router is asked; nothing else runs.

        Exits with 3 where the router gave no plan.
        """
        from orchestra.cli import drafting
        from orchestra.cli.drafting import Drafting
        from orchestra.cli.signals import carry_out
        from orchestra.planning import Wish
        from orchestra.workflow.nodes import PlanLimits

        wish = Wish(
            only=tuple(only or ()),
            router=router,
            limits=PlanLimits(steps=steps, width=WIDTH),
            repairs=repairs,
            stepwise=not whole,
            copied=not free,
            grounded=not ungrounded,
            anyway=anyway,
            cache=cache,
            larger=larger,
            votes=votes,
        )
        asked = Drafting(request, drafting.values(documents or (), inputs or ()), wish)
        if code := carry_out(partial(drafting.explain, opener(context), settings(fleet=fleet), asked, save, as_json)):
            raise typer.Exit(code)
