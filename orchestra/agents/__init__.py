"""Agents and tools: cards, prompts, the registry."""
