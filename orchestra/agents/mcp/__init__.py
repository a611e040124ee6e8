"""MCP tools: other people's tool servers, as child processes, their tools with contracts like any other and pinned."""
