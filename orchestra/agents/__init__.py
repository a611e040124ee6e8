"""Agents and tools: cards, contracts, prompts, output parsing, ensembles, tools of Python and of MCP servers, the
registry, and the inference code of agents with arrays.
"""

__all__ = [
    "card",
    "card_file",
    "card_types",
    "computed_fields",
    "contract",
    "encoder_tasks",
    "ensemble",
    "ensemble_voting",
    "evidence_grammar",
    "function_calls",
    "inference",
    "mcp",
    "native_tools",
    "output_parser",
    "prompt",
    "registry",
    "template",
    "tool_prompt",
    "tools",
]
