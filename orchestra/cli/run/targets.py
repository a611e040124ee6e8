"""Where the calls of a step may go: servers of the fleet, or this process."""

from __future__ import annotations

from dataclasses import dataclass, replace

from orchestra.agents.card import Card
from orchestra.app.project import Project
from orchestra.core.errors import InputError
from orchestra.core.labels import Label, meet
from orchestra.fleet.config import FleetConfig
from orchestra.workflows.program import CompiledNode

THIS_PROCESS = "here"
"""Where tools and the agents run that ask no server: in this process."""


@dataclass(frozen=True, slots=True)
class CallTarget:
    """Where a call may go: a server of the fleet, or this process."""

    name: str
    external: bool
    clearance: Label
    """The strictest label of data that may go there, the agent's own ceiling included."""
    escalated: bool = False
    """Whether it is asked only where a smaller model was not good enough."""
    tier: int = 0
    """Of such a one: which of the fleet's larger models it serves, from 1."""
    member: str = ""
    """Of an ensemble: whose calls go there."""


def node_targets(
    project: Project, fleet: FleetConfig, node: CompiledNode
) -> tuple[tuple[CallTarget, ...], bool | None]:
    """Where a node's calls may go, and whether its agent has a certificate that holds."""
    contract = node.contract if node.plan_settings is None else node.plan_settings.router
    if contract is None or contract.kind == "tool":
        return (CallTarget(THIS_PROCESS, False, "restricted" if contract is None else contract.label),), None
    card = project.registry.cards.get(contract.name)
    escalates = node.escalate is not None or (node.acceptance is not None and "escalate" in node.acceptance.otherwise)
    targets = model_targets(fleet, card, escalates=escalates)
    if node.plan_settings is not None and (larger := node.plan_settings.larger) is not None:
        more = model_targets(fleet, project.registry.cards.get(larger.name), escalates=False)
        targets += tuple(
            replace(one, escalated=True) for one in more if one.name not in {target.name for target in targets}
        )
    return targets, has_valid_certificate(project, contract.name)


def has_valid_certificate(project: Project, agent: str) -> bool:
    """Whether an agent has a certificate that holds, so that a node may accept by it."""
    try:
        return agent in project.catalog().certificates
    except InputError:
        return False


def model_targets(fleet: FleetConfig, card: Card | None, *, escalates: bool) -> tuple[CallTarget, ...]:
    """The servers of a card's model, and those of the larger one, of an ensemble those of each member; none where the fleet has no model
    for one of them."""
    if card is not None and card.member_cards:
        each = [(part.name, model_targets(fleet, part, escalates=escalates)) for part in card.member_cards]
        if not all(found for _, found in each):
            return ()
        return tuple(
            replace(one, member=name, clearance=meet((one.clearance, card.label)))
            for name, found in each
            for one in found
        )
    if card is None or card.kind != "model":
        return (CallTarget(THIS_PROCESS, False, card.label if card is not None else "restricted"),)
    found = []
    for tier, model in enumerate((card.model, *(fleet.tiers if escalates else ()))):
        for name in fleet.servers_for(model):
            server = fleet.servers[name]
            found.append(CallTarget(name, server.external, meet((server.label, card.label)), tier > 0, tier))
    return tuple(found)
