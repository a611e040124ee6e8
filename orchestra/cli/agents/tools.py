"""`orchestra tools`: what tools there are, and the pins of those that MCP servers have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.context import settings, settings_to_inspect
from orchestra.cli.options import AsJson
from orchestra.cli.output import console, print_json, say, table
from orchestra.cli.trust import notice
from orchestra.cli.typer_adapter import add
from orchestra.core.errors import InputError
from orchestra.core.untrusted_text import visible

if TYPE_CHECKING:
    from orchestra.agents.mcp.pins import Pin
    from orchestra.core.settings import Settings


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    tools = typer.Typer(no_args_is_help=True, help="The tools: list them, pin those of MCP servers.")
    add(tools, list_, "list")
    add(tools, pin)
    app.add_typer(tools, name="tools", rich_help_panel="Look it up")


def list_(as_json: AsJson = False) -> None:
    """List all tools that a workflow may call, with their effects."""
    from orchestra.app.project import Project
    from orchestra.router.capabilities import Skill
    from orchestra.router.prompt import line

    chosen = settings_to_inspect()
    notice(chosen)
    found = sorted(Project.load(chosen).registry.tools.items())
    if as_json:
        said = ("name", "effect", "label", "description", "input", "output", "version")
        print_json([{key: getattr(tool.contract, key) for key in said} for _, tool in found])
        return
    rows = [
        (visible(line(Skill.of(tool.contract)).partition(": ")[0]), tool.contract.effect, tool.contract.label, tool.contract.description)
        for _, tool in found
    ]
    console().print(table(("tool", "effect", "label", "what it does"), rows))


def pin(
    server: Annotated[str, typer.Argument(help="A server of `[mcp.NAME]` in the configuration.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what the server says, and keep nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask an MCP server what its tools are, show it, and hold the server to it from now on."""
    chosen = settings()
    found = _asked(chosen, server)
    before = _Before.of(chosen, server)
    rows = [_row(chosen, server, name, one, before) for name, one in sorted(found.items())]
    kept = {name: one for name, one in found.items() if name in chosen.mcp[server].tools and not isinstance(one, InputError)}
    path = None if dry_run else _kept(chosen, server, kept)
    if as_json:
        print_json({"server": server, "file": str(path) if path else None, "tools": rows})
        return
    for row in rows:
        say(f"{row['name']}  {row['state']}", style="bold")
        say(f"  {row['description'] or 'says nothing of itself'}")
        if row["digest"]:
            say(f"  {row['digest']}", style="dim")
    say(f"\npinned {len(kept)} in {path}" if path else "\nnothing is kept")


@dataclass(frozen=True, slots=True)
class _Before:
    """What was pinned: each tool by itself, so that what has changed shows whatever else is missing or damaged."""

    pins: Mapping[str, Pin]
    broken: Collection[str] = ()
    """Tools whose pin is not what its digest says."""
    unread: bool = False
    """Whether the file is there and cannot be read."""

    @classmethod
    def of(cls, chosen: Settings, server: str) -> _Before:
        from orchestra.agents.mcp import pins

        try:
            return cls(*pins.known(chosen.project, server))
        except InputError as error:
            if error.code != "T012":
                raise
            return cls({}, unread=True)

    def state(self, name: str, today: Pin) -> str:
        """How a tool stands to its pin."""
        if self.unread:
            return "not known, the pins cannot be read"
        if name in self.broken:
            return "not known, its pin was TAMPERED WITH"
        pin = self.pins.get(name)
        return "new" if pin is None else "as before" if pin == today else "CHANGED"


def _asked(chosen: Settings, name: str) -> dict[str, Pin | InputError]:
    """What a server says today. Raises `InputError` C004, T011 and so on."""
    import asyncio

    from orchestra.agents.mcp.pins import path_of
    from orchestra.agents.mcp.server import Server
    from orchestra.agents.tools import ToolFault
    from orchestra.core.settings import unknown

    config = chosen.mcp.get(name)
    if config is None:
        raise unknown("MCP server", name, chosen.mcp, "C004")
    path_of(chosen.project, name)  # outside of a project nothing is asked

    async def ask() -> dict[str, Pin | InputError]:
        server = Server(name, config, {}, chosen.project)
        try:
            return await server.listed()
        finally:
            await server.close()

    try:
        return asyncio.run(ask())
    except ToolFault as fault:
        raise InputError(fault.code, fault.reason, hint=fault.hint) from fault


def _row(chosen: Settings, server: str, name: str, one: Pin | InputError, before: _Before) -> dict[str, Any]:
    effect = chosen.mcp[server].tools.get(name)
    if isinstance(one, InputError):
        return {"name": f"{server}.{visible(name, keep='')}", "state": "unusable", "description": one.message, "digest": ""}
    state = "not declared, and not used" if effect is None else before.state(name, one)
    return {"name": f"{server}.{visible(name, keep='')}", "state": state, "description": one.said, "digest": one.digest}


def _kept(chosen: Settings, server: str, kept: dict[str, Pin]) -> Any:
    """Writes the pins. Raises `InputError` T019 where the configuration declares what the server has not."""
    from orchestra.agents.mcp import pins

    if missing := [name for name in chosen.mcp[server].tools if name not in kept]:
        raise InputError("T019", f"{server} has no usable tool {missing[0]!r}, which the configuration declares", hint="take it out there")
    return pins.write(chosen.project, server, kept)
