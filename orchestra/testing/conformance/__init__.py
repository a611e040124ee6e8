"""Conformance tests of journals, for authors of a journal with a storage of their own. Start with `suite`."""

__all__ = [
    "inbox",
    "log",
    "model",
    "scenarios",
    "suite",
]
