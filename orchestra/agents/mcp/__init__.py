"""MCP tools: third-party tool servers run as child processes. Their tools have contracts and are pinned."""

__all__ = ["pins", "server", "tool"]
