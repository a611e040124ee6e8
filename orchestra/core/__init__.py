"""Definitions that every other package uses: protocols, events, errors, settings, labels, the clock and files.

Start with `protocols`, which has the interfaces of the engine, and `events`, which has the facts that a run consists
of.
"""

__all__ = [
    "atomic_files",
    "child_process",
    "clock",
    "error_codes",
    "error_help",
    "errors",
    "event_logging",
    "events",
    "file_locks",
    "labels",
    "lifecycle",
    "outcomes",
    "paths",
    "protocols",
    "settings",
    "suggestions",
    "tags",
    "timestamps",
    "trust",
    "untrusted_text",
    "xdg",
]
