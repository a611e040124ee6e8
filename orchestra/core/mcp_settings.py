"""The settings of an MCP server: the table `[mcp.NAME]` of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestra.core.labels import Label


class McpServer(BaseModel):
    """A server of MCP tools: a program of yours that speaks MCP on its standard streams. No shell reads the command."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    command: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")], ...], Field(min_length=1)]
    environment: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$", max_length=128)], ...] = ()
    """Names of variables that it is given, beside PATH, HOME and LANG."""
    timeout: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 30.0
    """Seconds of a call."""
    label: Label = "internal"
    """The strictest label of data that it may be given: a server is a program of somebody, and may send on what it is given."""
    tools: Mapping[
        Annotated[str, Field(pattern=r"^[A-Za-z_]([A-Za-z0-9_./-]{0,126}[A-Za-z0-9_])?$")], Literal["pure", "idempotent", "once"]
    ]
    """Its tools that may be used, each with its effect; the others are not there."""
