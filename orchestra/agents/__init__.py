"""Agents and tools: cards, contracts, prompts, output parsing, ensembles, tools of Python and of MCP servers, the
registry, and the inference code of agents with arrays.
"""
