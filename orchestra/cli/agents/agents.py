"""`orchestra agents`: who can be asked, what each takes and gives, and typed Python for them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.context import settings_to_inspect
from orchestra.cli.options import AsJson
from orchestra.cli.output import console, print_json, say, table
from orchestra.cli.trust import notice
from orchestra.cli.typer_adapter import add
from orchestra.core.untrusted_text import shortened, visible

if TYPE_CHECKING:
    from orchestra.agents.card import Card
    from orchestra.agents.contract import Contract
    from orchestra.agents.registry import Registry

MAX_TYPE = 70
"""Characters of a type in a list."""


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    agents = typer.Typer(no_args_is_help=True, help="The specialists: list, show, bind to Python.")
    add(agents, list_, "list")
    add(agents, show)
    add(agents, bind)
    app.add_typer(agents, name="agents", rich_help_panel="Look it up")


def list_(as_json: AsJson = False) -> None:
    """List all agents, your own and those that come with Orchestra."""
    registry = _registry()
    found = sorted(registry.agents.items())
    if as_json:
        print_json([_data(name, contract, registry.cards.get(name)) for name, contract in found])
        return
    for name, error in sorted(registry.broken.items()):
        print(visible(f"warning: {name} is left out, for its card is broken: {error.code}: {error.message}"), file=sys.stderr)
    rows = [
        (
            name,
            _kind(registry.cards.get(name)),
            shortened(_inputs(contract), MAX_TYPE),
            shortened(_output(contract), MAX_TYPE),
            contract.description,
        )
        for name, contract in found
    ]
    console().print(table(("agent", "kind", "takes", "gives", "what it does"), rows))


def show(
    name: Annotated[str, typer.Argument(help="An agent's name.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show one agent: types, model, checks, and its prompt."""
    registry = _registry()
    card = registry.cards.get(name)
    contract = registry.agents[name] if name in registry.agents else registry.card(name).contract
    if as_json:
        print_json(
            {**_data(name, contract, card), "input": contract.input, "output": contract.output, "prompt": card.template if card else ""}
        )
    else:
        _show(contract, card)


def bind(
    names: Annotated[list[str] | None, typer.Argument(help="Which agents; all, where none is named.", show_default=False)] = None,
) -> None:
    """Print Python that binds agents with static types: orchestra agents bind > my_agents.py."""
    from orchestra.cli.agents.codegen import source

    registry = _registry()
    cards = [registry.card(name) for name in names] if names else [card for _, card in sorted(registry.cards.items())]
    sys.stdout.write(source(cards))


def _registry() -> Registry:
    from orchestra.app.project import Project

    chosen = settings_to_inspect()
    notice(chosen)
    return Project.load(chosen).registry


def _kind(card: Card | None) -> str:
    return card.kind if card else "python"


def _inputs(contract: Contract) -> str:
    from orchestra.schema.json_schema import shown

    fields: dict[str, Any] = contract.input.get("properties", {})
    return ", ".join(f"{name}: {shown(contract.input, name)}" for name in fields)


def _output(contract: Contract) -> str:
    from orchestra.schema.json_schema import show, under

    fields: dict[str, Any] = contract.output.get("properties", {})
    if not fields or "title" in contract.output:
        return show(contract.output)
    return "{" + ", ".join(f"{name}: {show(under(contract.output, schema))}" for name, schema in fields.items()) + "}"


def _data(name: str, contract: Contract, card: Card | None) -> dict[str, Any]:
    return {
        "name": name,
        "kind": _kind(card),
        "description": contract.description,
        "takes": _inputs(contract),
        "gives": _output(contract),
        "model": card.model if card and card.kind in ("model", "encoder") else None,
        "adapter": card.adapter if card else None,
        "tools": list(card.tools) if card else [],
        "agents": list(card.agents) if card else [],
        "members": list(card.members) if card else [],
        "label": contract.label,
        "checks": list(contract.checks),
        "folder": str(card.folder) if card and card.folder else None,
        "digest": contract.digest,
    }


def _show(contract: Contract, card: Card | None) -> None:
    say(visible(f"{contract.name}: {contract.description}"), style="bold")
    say(f"\n  takes   {_inputs(contract)}\n  gives   {_output(contract)}\n  label   sees data up to {contract.label}")
    if contract.checks:
        say(f"  checks  {', '.join(contract.checks)}")
    if card is None:
        return
    if card.kind == "model":
        adapter = f" with the adapter {card.adapter}" if card.adapter else ""
        say(f"  asks    the fleet's model {card.model!r}{adapter}, for at most {card.max_output} tokens")
    if (kit := contract.kit) is not None:
        say(f"  uses    {', '.join((*kit.tools, *kit.agents))}; at most {kit.steps} calls, {kit.shown:,} characters of each are read")
    if card.parts:
        weights = card.weights or (1.0,) * len(card.parts)
        named = ", ".join(f"{part.name} × {weight:g}" for part, weight in zip(card.parts, weights, strict=True))
        order = "side by side" if card.enough is None else f"in this order, until an answer has a probability of {card.enough:g}"
        say(f"  asks    {named}, {order}; the likeliest of their answers is its own")
    if card.kind == "encoder":
        say(f"  stands  on the encoder {card.model!r}, in this process")
    say(f"  card    {card.folder}\n  digest  {card.digest}")
    if card.template:
        say("\nprompt", style="bold")
        say(visible(card.template.rstrip()))
