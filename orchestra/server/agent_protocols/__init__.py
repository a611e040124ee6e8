"""Protocols between agents: MCP (each workflow is a tool), A2A (a run is a task) and AG-UI (a run is a stream).

They share how a workflow is offered (`skills`), how a run is answered (`replies`), and how a question to a person is
put and answered (`questions`).
"""
