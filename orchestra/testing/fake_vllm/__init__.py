"""A simulated vLLM server for tests: real HTTP, seeded answers, and faults on demand."""

__all__ = [
    "faults",
    "http",
    "server",
]
