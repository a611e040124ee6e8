"""`orchestra tools`: what tools there are, and the pins of those that MCP servers have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.context import load_settings, load_settings_to_inspect
from orchestra.cli.options import JsonOption
from orchestra.cli.output import make_console, make_table, print_json, print_text
from orchestra.cli.trust import print_trust_notice
from orchestra.cli.typer_adapter import add_command
from orchestra.core.errors import InputError
from orchestra.core.untrusted_text import escape_invisible

if TYPE_CHECKING:
    from orchestra.agents.mcp.pins import ToolPin
    from orchestra.core.settings import Settings


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    tools = typer.Typer(no_args_is_help=True, help="The tools: list them, pin those of MCP servers.")
    add_command(tools, list_, "list")
    add_command(tools, pin)
    app.add_typer(tools, name="tools", rich_help_panel="Look it up")


def list_(as_json: JsonOption = False) -> None:
    """List all tools that a workflow may call, with their effects."""
    from orchestra.app.project import Project
    from orchestra.router.capabilities import Capability
    from orchestra.router.prompt import capability_line

    chosen = load_settings_to_inspect()
    print_trust_notice(chosen)
    found = sorted(Project.load(chosen).registry.tools.items())
    if as_json:
        said = ("name", "effect", "label", "description", "input", "output", "version")
        print_json([{key: getattr(tool.contract, key) for key in said} for _, tool in found])
        return
    rows = [
        (
            escape_invisible(capability_line(Capability.from_contract(tool.contract)).partition(": ")[0]),
            tool.contract.effect,
            tool.contract.label,
            tool.contract.description,
        )
        for _, tool in found
    ]
    make_console().print(make_table(("tool", "effect", "label", "what it does"), rows))


def pin(
    server: Annotated[str, typer.Argument(help="A server of `[mcp.NAME]` in the configuration.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what the server says, and keep nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask an MCP server what its tools are, show it, and hold the server to it from now on."""
    chosen = load_settings()
    found = _fetch_pins(chosen, server)
    before = _StoredPins.load(chosen, server)
    rows = [_tool_data(chosen, server, name, one, before) for name, one in sorted(found.items())]
    kept = {
        name: one for name, one in found.items() if name in chosen.mcp[server].tools and not isinstance(one, InputError)
    }
    path = None if dry_run else _write_pins(chosen, server, kept)
    if as_json:
        print_json({"server": server, "file": str(path) if path else None, "tools": rows})
        return
    for row in rows:
        print_text(f"{row['name']}  {row['state']}", style="bold")
        print_text(f"  {row['description'] or 'says nothing of itself'}")
        if row["digest"]:
            print_text(f"  {row['digest']}", style="dim")
    print_text(f"\npinned {len(kept)} in {path}" if path else "\nnothing is kept")


@dataclass(frozen=True, slots=True)
class _StoredPins:
    """What was pinned: each tool by itself, so that what has changed shows whatever else is missing or damaged."""

    pins: Mapping[str, ToolPin]
    broken: Collection[str] = ()
    """Tools whose pin is not what its digest says."""
    unreadable: bool = False
    """Whether the file is there and cannot be read."""

    @classmethod
    def load(cls, settings: Settings, server: str) -> _StoredPins:
        from orchestra.agents.mcp import pins

        try:
            return cls(*pins.read_valid(settings.project, server))
        except InputError as error:
            if error.code != "T012":
                raise
            return cls({}, unreadable=True)

    def state(self, name: str, current: ToolPin) -> str:
        """How a tool stands to its pin."""
        if self.unreadable:
            return "not known, the pins cannot be read"
        if name in self.broken:
            return "not known, its pin was TAMPERED WITH"
        pin = self.pins.get(name)
        return "new" if pin is None else "as before" if pin == current else "CHANGED"


def _fetch_pins(settings: Settings, name: str) -> dict[str, ToolPin | InputError]:
    """What a server says today. Raises `InputError` C004, T011 and so on."""
    import asyncio

    from orchestra.agents.mcp.pins import pin_path
    from orchestra.agents.mcp.server import McpClient
    from orchestra.agents.tools import ToolError
    from orchestra.core.settings import unknown_name_error

    config = settings.mcp.get(name)
    if config is None:
        raise unknown_name_error("MCP server", name, settings.mcp, "C004")
    pin_path(settings.project, name)  # outside of a project nothing is asked

    async def ask() -> dict[str, ToolPin | InputError]:
        server = McpClient(name, config, {}, settings.project)
        try:
            return await server.list_tools()
        finally:
            await server.close()

    try:
        return asyncio.run(ask())
    except ToolError as fault:
        raise InputError(fault.code, fault.reason, hint=fault.hint) from fault


def _tool_data(
    settings: Settings, server: str, name: str, pin: ToolPin | InputError, stored: _StoredPins
) -> dict[str, Any]:
    effect = settings.mcp[server].tools.get(name)
    if isinstance(pin, InputError):
        return {
            "name": f"{server}.{escape_invisible(name, keep='')}",
            "state": "unusable",
            "description": pin.message,
            "digest": "",
        }
    state = "not declared, and not used" if effect is None else stored.state(name, pin)
    return {
        "name": f"{server}.{escape_invisible(name, keep='')}",
        "state": state,
        "description": pin.summary,
        "digest": pin.digest,
    }


def _write_pins(settings: Settings, server: str, new_pins: dict[str, ToolPin]) -> Any:
    """Writes the pins. Raises `InputError` T019 where the configuration declares what the server has not."""
    from orchestra.agents.mcp import pins

    if missing := [name for name in settings.mcp[server].tools if name not in new_pins]:
        raise InputError(
            "T019",
            f"{server} has no usable tool {missing[0]!r}, which the configuration declares",
            hint="take it out there",
        )
    return pins.write(settings.project, server, new_pins)
