"""`orchestra agents`: who can be asked, what each takes and gives, and typed Python for them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.context import load_settings_to_inspect
from orchestra.cli.options import JsonOption
from orchestra.cli.output import make_console, make_table, print_json, print_text
from orchestra.cli.trust import print_trust_notice
from orchestra.cli.typer_adapter import add_command
from orchestra.core.untrusted_text import escape_invisible, shorten

if TYPE_CHECKING:
    from orchestra.agents.card import Card
    from orchestra.agents.contract import Contract
    from orchestra.agents.registry import Registry

MAX_TYPE_LENGTH = 70
"""Characters of a type in a list."""


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    agents = typer.Typer(no_args_is_help=True, help="The specialists: list, show, bind to Python.")
    add_command(agents, list_, "list")
    add_command(agents, show)
    add_command(agents, bind)
    app.add_typer(agents, name="agents", rich_help_panel="Look it up")


def list_(as_json: JsonOption = False) -> None:
    """List all agents, your own and those that come with Orchestra."""
    registry = _load_registry()
    found = sorted(registry.agents.items())
    if as_json:
        print_json([_agent_data(name, contract, registry.cards.get(name)) for name, contract in found])
        return
    for name, error in sorted(registry.broken.items()):
        print(
            escape_invisible(f"warning: {name} is left out, for its card is broken: {error.code}: {error.message}"),
            file=sys.stderr,
        )
    rows = [
        (
            name,
            _kind(registry.cards.get(name)),
            shorten(_format_inputs(contract), MAX_TYPE_LENGTH),
            shorten(_format_output(contract), MAX_TYPE_LENGTH),
            contract.description,
        )
        for name, contract in found
    ]
    make_console().print(make_table(("agent", "kind", "takes", "gives", "what it does"), rows))


def show(
    name: Annotated[str, typer.Argument(help="An agent's name.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Show one agent: types, model, checks, and its prompt."""
    registry = _load_registry()
    card = registry.cards.get(name)
    contract = registry.agents[name] if name in registry.agents else registry.card(name).contract
    if as_json:
        print_json(
            {
                **_agent_data(name, contract, card),
                "input": contract.input,
                "output": contract.output,
                "prompt": card.template if card else "",
            }
        )
    else:
        _show_agent(contract, card)


def bind(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which agents; all, where none is named.", show_default=False)
    ] = None,
) -> None:
    """Print Python that binds agents with static types: orchestra agents bind > my_agents.py."""
    from orchestra.cli.agents.codegen import generate_source

    registry = _load_registry()
    cards = [registry.card(name) for name in names] if names else [card for _, card in sorted(registry.cards.items())]
    sys.stdout.write(generate_source(cards))


def _load_registry() -> Registry:
    from orchestra.app.project import Project

    chosen = load_settings_to_inspect()
    print_trust_notice(chosen)
    return Project.load(chosen).registry


def _kind(card: Card | None) -> str:
    return card.kind if card else "python"


def _format_inputs(contract: Contract) -> str:
    from orchestra.schema.json_schema import format_field

    fields: dict[str, Any] = contract.input.get("properties", {})
    return ", ".join(f"{name}: {format_field(contract.input, name)}" for name in fields)


def _format_output(contract: Contract) -> str:
    from orchestra.schema.json_schema import format_type, subschema

    fields: dict[str, Any] = contract.output.get("properties", {})
    if not fields or "title" in contract.output:
        return format_type(contract.output)
    return (
        "{"
        + ", ".join(f"{name}: {format_type(subschema(contract.output, schema))}" for name, schema in fields.items())
        + "}"
    )


def _agent_data(name: str, contract: Contract, card: Card | None) -> dict[str, Any]:
    return {
        "name": name,
        "kind": _kind(card),
        "description": contract.description,
        "takes": _format_inputs(contract),
        "gives": _format_output(contract),
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


def _show_agent(contract: Contract, card: Card | None) -> None:
    print_text(escape_invisible(f"{contract.name}: {contract.description}"), style="bold")
    print_text(
        f"\n  takes   {_format_inputs(contract)}\n  gives   {_format_output(contract)}\n  label   sees data up to {contract.label}"
    )
    if contract.checks:
        print_text(f"  checks  {', '.join(contract.checks)}")
    if card is None:
        return
    if card.kind == "model":
        adapter = f" with the adapter {card.adapter}" if card.adapter else ""
        print_text(f"  asks    the fleet's model {card.model!r}{adapter}, for at most {card.max_output} tokens")
    if (tool_use := contract.tool_use) is not None:
        print_text(
            f"  uses    {', '.join((*tool_use.tools, *tool_use.agents))}; at most {tool_use.steps} calls, {tool_use.shown:,} characters of each are read"
        )
    if card.member_cards:
        weights = card.weights or (1.0,) * len(card.member_cards)
        named = ", ".join(f"{part.name} × {weight:g}" for part, weight in zip(card.member_cards, weights, strict=True))
        order = (
            "side by side"
            if card.enough is None
            else f"in this order, until an answer has a probability of {card.enough:g}"
        )
        print_text(f"  asks    {named}, {order}; the likeliest of their answers is its own")
    if card.kind == "encoder":
        print_text(f"  stands  on the encoder {card.model!r}, in this process")
    print_text(f"  card    {card.folder}\n  digest  {card.digest}")
    if card.template:
        print_text("\nprompt", style="bold")
        print_text(escape_invisible(card.template.rstrip()))
