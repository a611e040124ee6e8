"""A small MCP server on the official SDK, with faults on request. It runs as a program on its standard streams.

The argument `how` of its tool `act` selects the behaviour. The variable DESCRIPTION is the description of `act`; VICE
selects a fault that applies from the start.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

import mcp_types as types
from mcp.server import Server
from mcp.server.stdio import stdio_server

VICE = os.environ.get("VICE", "")
OUT = os.dup(1)
"""The real standard output: the SDK redirects other output to standard error."""
ACT = {
    "type": "object",
    "properties": {"how": {"type": "string"}, "text": {"type": "string", "default": ""}},
    "required": ["how"],
}
FIND = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
FOUND = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
    "required": ["name", "size"],
}
changes = 0


def tools() -> list[types.Tool]:
    said = os.environ.get("DESCRIPTION", "Does as it is told.") + " Again." * changes
    found = [
        types.Tool(name="act", description=said, input_schema=ACT),
        types.Tool(name="find", description="Finds a thing.", input_schema=FIND, output_schema=FOUND),
    ]
    if VICE == "schema":
        found.append(
            types.Tool(
                name="far", description="", input_schema={"type": "object", "$ref": "https://example.com/schema.json"}
            )
        )
        deep: dict[str, Any] = {"type": "string"}
        for _ in range(90):
            deep = {"type": "array", "items": deep}
        found.append(
            types.Tool(name="deep", description="", input_schema={"type": "object", "properties": {"a": deep}})
        )
        found.append(types.Tool(name="wide", description="x" * 200_000, input_schema=FIND))
    return found


async def listed(context: Any, params: Any) -> types.ListToolsResult:
    return types.ListToolsResult(tools=tools())


async def called(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    given = params.arguments or {}
    if params.name == "find":
        wrong = given["name"] == "wrong"
        record = {"name": given["name"], "size": "large" if wrong else 3}
        return types.CallToolResult(content=[], structured_content=None if given["name"] == "none" else record)
    match given["how"]:
        case "fail":
            return types.CallToolResult(content=[types.TextContent(text="no such\n\x1b[31mthing")], is_error=True)
        case "raise":
            raise ValueError("it broke")
        case "die":
            print("I am dying", file=sys.stderr, flush=True)
            os._exit(3)
        case "hang":
            await asyncio.sleep(3600)
        case "deaf":
            time.sleep(3600)  # noqa: ASYNC251  # no ping is answered
        case "huge":
            return text("x" * (8 << 20))
        case "large":
            return text("x" * (2 << 20))
        case "flood":
            while True:
                os.write(OUT, b"x" * (1 << 20))
        case "junk":
            for _ in range(5_000):
                os.write(OUT, b"not a message\n")
        case "print":
            os.write(OUT, b"hello, people\n")
        case "shout":
            for _ in range(100):
                os.write(2, b"x" * (1 << 16))
        case "nonsense":
            os.write(OUT, b'{"jsonrpc": "2.0", "id": 99999, "result": {}}\n[1, 2\n{"jsonrpc": "2.0"}\n')
        case "image":
            return types.CallToolResult(content=[types.ImageContent(data="AAAA", mime_type="image/png")])
        case "environment":
            return text(",".join(sorted(os.environ)))
        case "change":
            global changes
            changes += 1
            await context.session.send_tool_list_changed()
        case "where":
            return text(f"{os.getpid()} {os.getcwd()}")
        case _:
            pass
    return text(given.get("text", ""))


def text(said: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=said)])


async def main() -> None:
    print("listening", file=sys.stderr, flush=True)
    if VICE == "silent":
        await asyncio.sleep(3600)
    if VICE == "quits":
        sys.exit("no licence")
    if VICE.startswith("helper"):  # like a browser that is started: in its own session, with our standard output
        subprocess.Popen(["sleep", "90"], start_new_session=True, stdin=subprocess.DEVNULL)  # noqa: ASYNC220
    if VICE == "talks":
        print("Welcome to the server!", flush=True)
    server: Any = Server("served", on_list_tools=listed, on_call_tool=called)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())
    if VICE == "helper, deaf":
        time.sleep(3600)  # noqa: ASYNC251  # does not end with its input


if __name__ == "__main__":
    asyncio.run(main())
