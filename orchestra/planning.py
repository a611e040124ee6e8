"""Planning: the router's questions carried to the router's agent, and the plan as a workflow that runs.

`plan` is what `orchestra plan` and `orchestra ask` do. The router itself (`orchestra.router`) is pure; here its questions become calls, and
plans that served are kept in the journal's memo, under keys of intent and shape (`orchestra.router.cache`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestra.app import Orchestra
from orchestra.errors import InputError, OrchestraError
from orchestra.events import NOTHING, Usage
from orchestra.router import cache, telling
from orchestra.router.gates import Rejection
from orchestra.router.notation import Answer
from orchestra.router.offer import Offer, Skill, statable
from orchestra.router.plan import Plan, workflow
from orchestra.router.planner import DECLINED, Ask, Planned, Request, Unplanned, go_on, shortened, start
from orchestra.router.shortlist import MOST, nearest_skill, shortlist
from orchestra.router.values import type_of
from orchestra.router.votes import Vote, vote
from orchestra.values.types import Schema
from orchestra.workflow.nodes import Graph, PlanLimits
from orchestra.workflow.steps import Agent, Step, Workflow

ROUTER = "router"
PLANNERS = frozenset({ROUTER, "planner", "tool_planner"})
"""What plans, and is no skill of a plan."""
REQUEST = "request"
"""The input that holds the request itself."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """Where a plan comes from that nobody was asked for."""

    run: str
    """The run that it served, or in which it was made."""
    request: str
    """What was wanted then."""
    saved: Usage
    """What it cost to make, and was not spent again."""


@dataclass(frozen=True)
class Draft:
    """What came of planning: the plan, or why there is none."""

    request: str
    offer: Offer
    plan: Plan | None
    rejections: tuple[Rejection, ...] = ()
    lines: int = 0
    """Questions to the router's agent."""
    repaired: int = 0
    usage: Usage = NOTHING
    """What the router's agent cost."""
    recalled: Recalled | None = None
    """Of a plan that comes from the cache."""
    remarks: tuple[str, ...] = ()
    """What a person should know: a stored plan that was ignored, with its code."""
    votes: Vote | None = None
    """Of a plan that was voted on."""
    run: str = ""
    """The run of the last question."""
    shape: str = ""
    """What the plan may be made of, as the cache tells it; empty where the cache is not used."""

    @property
    def declined(self) -> bool:
        """Whether the router found that nothing which is offered serves the request."""
        return self.plan is None and any(one.code == DECLINED for one in self.rejections)

    @property
    def graph(self) -> Graph:
        """The plan as a workflow. Raises `InputError` R007 where there is no plan."""
        if self.plan is None:
            why = "; ".join(map(str, self.rejections)) or "it wrote nothing"
            raise InputError("R007", f"the router gave no plan: {why}", hint="orchestra explain R007")
        return workflow(self.plan, self.offer, "plan", self.request[:200])


@dataclass(frozen=True)
class Wish:
    """How a plan shall be made."""

    only: tuple[str, ...] = ()
    """Agents, tools and workflows that it may use; empty for all that have no effects."""
    returns: Schema = field(default_factory=dict)
    router: str | Step[..., Any] = ROUTER
    """The agent that plans, or its name."""
    limits: PlanLimits = field(default_factory=lambda: PlanLimits(steps=8, width=16))
    repairs: int = 2
    stepwise: bool = True
    most: int = MOST
    """Skills that the router is shown at most."""
    copied: bool = True
    """Whether the texts that a plan states are pieces of the request."""
    anyway: bool = False
    """Whether what can be done is planned even where the router finds that nothing serves the request."""
    cache: bool = True
    """Whether a plan that has served may serve again."""
    larger: str | Step[..., Any] | None = None
    """The agent that goes on where the repairs are used up, or its name."""
    votes: int = 1
    """Plans that are sampled, at a temperature above 0; the one that most of them agree on is taken."""


async def plan(orchestra: Orchestra, request: str, values: Mapping[str, Any], wish: Wish | None = None) -> Draft:
    """A plan for a request over the values at hand: one that has served (`keep`), or else one by the router's agent.

    Raises `InputError` C004 for a skill or a router that is not there, and what a call of the agent raises.
    """
    wish = wish or Wish()
    allowed = _allowed(orchestra, request, values, wish)
    agent = _agent(orchestra, wish.router)
    larger = None if wish.larger is None else _agent(orchestra, wish.larger)
    remarks: tuple[str, ...] = ()
    shape = ""
    if wish.cache:
        planners = [Skill.of_workflow(orchestra.program(one)).digest for one in (agent, larger) if one is not None]
        shape = cache.shape(allowed, "/".join(planners), orchestra.label, str(wish.votes))
        found, remarks = await _recalled(orchestra, request, allowed, shape)
        if found is not None:
            return found
    offer = shortlist(allowed, request, wish.most)
    asked = Request(request, offer, wish.repairs, wish.stepwise, larger=larger is not None)
    if wish.votes > 1:
        drafted = await _voted(orchestra, asked, agent, larger, wish.votes)
    else:
        drafted = await _asked(orchestra.options(purpose="planning"), asked, agent, larger)
    rejections = drafted.rejections
    if drafted.declined:
        rejections = tuple(replace(one, hint=_nearest(orchestra, request, values, wish)) for one in rejections)
    return replace(drafted, rejections=rejections, remarks=remarks, shape=shape)


def _agent(orchestra: Orchestra, named: str | Step[..., Any]) -> Step[..., Any]:
    """What plans. A name means an agent, though a workflow may have it too, as `planner` has."""
    if not isinstance(named, str):
        return named
    contract = orchestra.registry.agents.get(named)
    return Agent.of(contract) if contract is not None else orchestra.find(named)


async def _asked(router: Orchestra, request: Request, agent: Step[..., Any], larger: Step[..., Any] | None) -> Draft:
    """The plan that the router's agent makes, or the larger one where it does not come to one."""
    state, wanted = start(request)
    asked, usage, run = 0, NOTHING, ""
    while isinstance(wanted, Ask):
        asked += 1
        reply = await router.run(larger if wanted.larger and larger is not None else agent, **wanted.inputs)
        usage, run = usage + reply.usage, reply.run
        state, wanted = go_on(state, str(reply.output))
    match wanted:
        case Planned(found, repaired):
            return Draft(request.text, request.offer, found, state.rejected, asked, repaired, usage, run=run)
        case Unplanned(rejections):
            return Draft(request.text, request.offer, None, rejections, asked, state.repaired, usage, run=run)


async def _voted(orchestra: Orchestra, request: Request, agent: Step[..., Any], larger: Step[..., Any] | None, votes: int) -> Draft:
    """Of several samples, made side by side, the plan that most of them agree on; what all of them cost.

    A sample whose calls fail came to no plan. Raises what the first one raised where all of them did.
    """
    sampled = [orchestra.options(purpose="planning", sample=number) for number in range(1, votes + 1)]
    tasks = [asyncio.create_task(_asked(one, request, agent, larger)) for one in sampled]
    try:
        await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    faults = [one for one in ended if isinstance(one, BaseException)]
    drafts = [one for one in ended if isinstance(one, Draft)]
    if not drafts or any(not isinstance(fault, OrchestraError) for fault in faults):
        raise next((fault for fault in faults if not isinstance(fault, OrchestraError)), faults[0])
    won = vote([_candidate(one) if isinstance(one, Draft) else None for one in ended])
    chosen = drafts[0] if won is None else ended[won.chosen]
    assert isinstance(chosen, Draft), "a sample that failed has no votes"
    usage = sum((one.usage for one in drafts), NOTHING)
    return replace(chosen, lines=sum(one.lines for one in drafts), usage=usage, votes=won)


def _candidate(draft: Draft) -> Plan | None:
    """What a sample votes for: its plan, or `return nothing`."""
    return Plan((), Answer(())) if draft.declined else draft.plan


async def _recalled(orchestra: Orchestra, request: str, offer: Offer, shape: str) -> tuple[Draft | None, tuple[str, ...]]:
    """A plan that has served and fits; and what is to be said of stored ones that are none."""
    remarks: list[str] = []
    for key in cache.keys(request, shape):
        try:
            known = await orchestra.journal.recall(key)
            if known is None:
                continue
            run, stored = known
            plan, entry = cache.recalled(stored, request, offer, shape)
        except cache.Unfit as error:
            remarks += [cache.ignored(error.reason)] if error.foreign else []
        except OrchestraError as error:  # a journal that is damaged there: planning goes on without it
            remarks.append(cache.ignored(f"{error.code}: {error.message}"))
        else:
            known_from = Recalled(run, entry.request, entry.cost)
            return Draft(request, offer, plan, recalled=known_from, remarks=tuple(remarks), votes=entry.vote), ()
    return None, tuple(remarks)


def keep(orchestra: Orchestra, draft: Draft, run: str = "") -> None:
    """Lets a plan serve again, because it ran to a value that was accepted, in `run`, or because somebody saved it.

    It is on disk with the journal's next commit, and gone when that run is deleted.
    """
    if draft.plan is None or draft.recalled is not None or not draft.shape:
        return
    stored = cache.entry(draft.plan, draft.request, draft.shape, draft.usage, draft.votes)
    for key in cache.keys(draft.request, draft.shape):
        orchestra.journal.remember(key, run or draft.run, stored)


def _nearest(orchestra: Orchestra, request: str, values: Mapping[str, Any], wish: Wish) -> str:
    """Of all skills, those too that cannot be called, the one that shares most words with the request, and what it needs and has not."""
    one = nearest_skill(list(_skills(orchestra, wish.only).values()), request)
    if one is None:
        return "orchestra agents list  tells what there is"
    needs = [f"{name}: {telling.kind(kind)}" for name, kind in one.fields.items() if name in one.required and not statable(kind)]
    missing = [need for need in needs if need.partition(":")[0] not in values]
    wanting = f", which needs {' and '.join(missing)}" if missing else ""
    return f"the nearest is {one.name}{wanting}; --anyway plans what can be done"


def offer_of(orchestra: Orchestra, request: str, values: Mapping[str, Any], wish: Wish | None = None) -> Offer:
    """What a plan for a request may be made of. Raises `InputError` C004 for a skill that is not there."""
    wish = wish or Wish()
    return shortlist(_allowed(orchestra, request, values, wish), request, wish.most)


def _allowed(orchestra: Orchestra, request: str, values: Mapping[str, Any], wish: Wish) -> Offer:
    """All that a plan may be made of, before a shortlist is drawn up."""
    given = {REQUEST: type_of(request), **{name: type_of(value) for name, value in values.items()}}
    copied = shortened(request) if wish.copied else ""
    return Offer(_skills(orchestra, wish.only), given, wish.returns, wish.limits, copied, not wish.anyway)


def _skills(orchestra: Orchestra, only: Iterable[str]) -> dict[str, Skill]:
    names = tuple(only) or tuple(_harmless(orchestra))
    return {name: _skill(orchestra, name) for name in names}


def _harmless(orchestra: Orchestra) -> Iterable[str]:
    """Everything that has no effects. Workflows first: what somebody has put together and named serves better than its parts.

    An agent that is told the grammar of its output with each call is somebody's router, and no step.
    """
    registry = orchestra.registry
    yield from (name for name in orchestra.workflows() if name not in PLANNERS and not _acts(orchestra, name))
    yield from (name for name, card in registry.cards.items() if name not in PLANNERS and card.grammar is None and card.trained)
    yield from (name for name, tool in registry.tools.items() if tool.contract.effect == "pure")


def _acts(orchestra: Orchestra, name: str) -> bool:
    """Whether a workflow may have an effect or ask a person, or cannot run at all."""
    try:
        return any(node.acts for node in orchestra.program(orchestra.find(name)).nodes)
    except InputError:
        return True  # `orchestra validate` says why


def _skill(orchestra: Orchestra, name: str) -> Skill:
    step, registry = orchestra.find(name), orchestra.registry
    if isinstance(step, Workflow):
        return Skill.of_workflow(orchestra.program(step))
    return Skill.of(registry.agents[name] if name in registry.agents else registry.tools[name].contract)
