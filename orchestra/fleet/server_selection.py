"""Selects the servers for a call: those of its model, or of a larger one, that may get its data."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra.agents.card import Card
from orchestra.agents.prompt import ConstraintMode
from orchestra.agents.tool_prompt import accepts_functions
from orchestra.core.labels import is_allowed
from orchestra.core.protocols import CallRequest
from orchestra.fleet.adapters import AdapterBases
from orchestra.fleet.config import Endpoint, FleetConfig, LocalServer
from orchestra.fleet.config_errors import suggestion
from orchestra.fleet.request_errors import RequestError


@dataclass(frozen=True, slots=True)
class ServerChoice:
    """The servers for a call, at least one, and the card for them.

    An escalated card has another model and no adapter.
    """

    card: Card
    servers: tuple[str, ...]


def choose_servers(config: FleetConfig, call: CallRequest, card: Card) -> ServerChoice | RequestError:
    """Returns the servers for a call.

    The error is F201 for an unknown model, F202 for a forbidden label, F220 if there is no larger model.
    """
    if not is_allowed(call.label, card.label):
        reason = f"data labelled {call.label!r} must not be seen by {card.name!r}, which is cleared for {card.label!r}"
        return RequestError.not_reached("F202", reason, f"use another agent, or change the `label:` of {card.name}")
    if call.is_escalated:
        tiers = config.tiers
        if call.tier > len(tiers):
            hint = "write `escalate: NAME` into the fleet file, with a larger model under `models:`"
            return RequestError.not_reached(
                "F220", f"the fleet {config.name!r} has no {'even ' if tiers else ''}larger model", hint
            )
        # An adapter belongs to the base model that it was trained on.
        card = card.model_copy(update={"model": tiers[call.tier - 1], "adapter": None})
    names = config.servers_for(card.model)
    if not names:
        hint = f"add it under `models:` of the fleet file{suggestion(card.model, config.models)}"
        return RequestError.not_reached("F201", f"the fleet {config.name!r} has no model {card.model!r}", hint)
    cleared_servers = tuple(name for name in names if is_allowed(call.label, config.servers[name].label))
    if not cleared_servers:
        reason = f"data labelled {call.label!r} may go to no server of the model {card.model!r}"
        return RequestError.not_reached(
            "F202", reason, "change the `label:` of a server in the fleet file, or use another fleet"
        )
    return ServerChoice(card, cleared_servers)


def supported_constraint(target: LocalServer | Endpoint, wanted: ConstraintMode) -> ConstraintMode:
    """Returns the strictest supported constraint. A grammar over the evidence needs vLLM with llguidance; others get
    the type only.
    """
    return "schema" if wanted == "evidence" and target.structured_outputs != "guidance" else wanted


def calls_functions_natively(target: LocalServer | Endpoint, card: Card, bases: AdapterBases) -> bool:
    """Whether the model of a server is asked for calls in the form of OpenAI's API, and not as lines.

    Local servers, and vLLM with llguidance, decode lines under a grammar. An adapter for the model of the server was
    trained on lines.
    """
    if not isinstance(target, Endpoint) or not accepts_functions(card.input_schema) or bases.uses_adapter(card, target):
        return False
    return target.dialect != "vllm" or target.structured_outputs != "guidance"
