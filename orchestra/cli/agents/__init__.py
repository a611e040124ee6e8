"""Commands on agents and tools."""
