"""What a fleet admits of a run's plans, told before the run begins: which agents must not see its data, and how much its planners can read.

The router and the engine know no fleet. So it is a fact of the run, among its options, and whoever resumes or replays it plans as it did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from orchestra.core.errors import InputError
from orchestra.core.labels import Label, join, may_go, meet
from orchestra.workflows.program import CompiledNode, Planning, Program, Using, programs

if TYPE_CHECKING:
    from orchestra.agents.card import Card
    from orchestra.agents.contract import Contract
    from orchestra.fleet.config import FleetConfig

PLANS = "plans"
"""The option of a run that has it."""


class Admitted(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is told of a run's plans."""

    barred: dict[str, Label] = {}
    """Agents that must not see the run's data, and what they are cleared for."""
    room: int = 0
    """Tokens of a prompt that each of the planners has room for, its own words left out; 0 where that is not known."""
    calls: bool = False
    """Whether a plan that surely takes more calls than the budget has goes back. It does not in runs from before, nor where calls may be
    recalled, and cost nothing."""
    barred_tools: dict[str, Label] = {}
    """Tools that must not see the run's data, likewise. Plans, and agents with tools, are not offered them."""


def admitted(fleet: FleetConfig | None, known: Mapping[str, Card], program: Program, label: Label, *, fresh: bool) -> dict[str, Any]:
    """What fleet and budget admit of the plans of a program on data with this label, as the run's options have it; empty where there is
    none to tell of. With `fresh` all calls are made in the run."""
    plans = [node.planning for one in programs(program) for node in one.nodes if node.planning is not None]
    calls = fresh and any(one.budget is not None and one.budget.calls is not None for one in programs(program))
    said = msgspec.structs.replace(_of_fleet(fleet, known, program, plans, label), calls=calls) if plans else Admitted()
    told: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(said, barred_tools=_barred_tools(program, label)))
    return {PLANS: told} if told else {}


def _barred_tools(program: Program, label: Label) -> dict[str, Label]:
    """The tools that plans, and agents with tools, may call in a program, and that are not cleared for data with this label."""
    found = (contract for one in programs(program) for node in one.nodes for contract in _chosen(node))
    return {one.name: one.label for one in found if one.kind == "tool" and not may_go(label, one.label)}


def _chosen(node: CompiledNode) -> Iterator[Contract]:
    """What a router or a model may choose to call at a node."""
    if node.using is not None:
        yield from node.using.skills
    if node.planning is not None:
        yield from node.planning.skills
        for called in node.planning.workflows.values():
            yield from called.program.sure_tools


def _of_fleet(fleet: FleetConfig | None, known: Mapping[str, Card], program: Program, plans: list[Planning], label: Label) -> Admitted:
    """What the fleet admits; all where there is none."""
    if fleet is None:
        return Admitted()
    cards = {name: card for name, _ in program.askable if (card := known.get(name)) is not None}
    cleared = {name: clearance(fleet, card) for name, card in cards.items()}
    planners = {one.name for plan in plans for one in (plan.router, plan.larger) if one is not None}
    barred = {name: most for name, most in cleared.items() if not may_go(label, most) and name not in planners}
    return Admitted(barred, room(fleet, [cards[name] for name in sorted(planners) if name in cards]))


def clearance(fleet: FleetConfig, card: Card) -> Label:
    """The strictest label of data that an agent and one of its servers may see; of an ensemble, all members. A model that the fleet does
    not have forbids nothing."""
    parts = [card, *card.parts]
    return meet(label for part in parts for label in (part.label, *_servers(fleet, part)))


def _servers(fleet: FleetConfig, card: Card) -> Iterator[Label]:
    """The strictest label that one of an agent's servers is cleared for."""
    names = fleet.serving(card.model) if card.kind == "model" and not card.parts else ()
    if names:
        yield join(fleet.servers[name].label for name in names)


def room(fleet: FleetConfig, planners: list[Card]) -> int:
    """The tokens that the least of these planners' servers has for what it is told; 0 where one of them does not tell."""
    contexts = [(card, fleet.servers[name].max_model_len or 0) for card in planners for name in fleet.serving(card.model)]
    if not contexts or not all(context for _, context in contexts):
        return 0
    return max(1, min(context - card.max_output - (len(card.system) + len(card.template)) // 2 for card, context in contexts))


def planned(program: Program, told: Mapping[str, Any]) -> Program:
    """The program with what a run's options tell of its plans. Raises `InputError` E019 for what does not say that."""
    if PLANS not in told:
        return program
    try:
        return _planned(program, msgspec.convert(told[PLANS], Admitted), None)
    except msgspec.ValidationError as error:
        raise InputError("E019", f"what is said of its plans is none: {error}", hint="orchestra explain E019") from error


def _planned(program: Program, said: Admitted, calls: int | None) -> Program:
    own = program.budget.calls if said.calls and program.budget is not None else None
    least = min((one for one in (own, calls) if one is not None), default=None)
    return replace(program, nodes=tuple(_node(node, said, least) for node in program.nodes))


def _node(node: CompiledNode, said: Admitted, calls: int | None) -> CompiledNode:
    body = node.body if node.body is None else _planned(node.body, said, calls)
    planning = node.planning if node.planning is None else _planning(node.planning, said, calls)
    using = node.using if node.using is None else _using(node.using, said)
    if body is node.body and planning is node.planning and using is node.using:
        return node
    return msgspec.structs.replace(node, body=body, planning=planning, using=using)


def _using(using: Using, said: Admitted) -> Using:
    """What an agent may use, without the tools that must not see the run's data."""
    skills = tuple(one for one in using.skills if one.kind != "tool" or one.name not in said.barred_tools)
    return using if len(skills) == len(using.skills) else msgspec.structs.replace(using, skills=skills)


def _planning(planning: Planning, said: Admitted, calls: int | None) -> Planning:
    called = {name: replace(one, program=_planned(one.program, said, calls)) for name, one in planning.workflows.items()}
    return msgspec.structs.replace(
        planning, workflows=called, barred=said.barred, barred_tools=said.barred_tools, room=said.room, calls=calls
    )
