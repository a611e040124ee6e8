"""The application: `Orchestra` connects registry, journal, workers and engine. The Python API and the CLI use it."""

__all__ = [
    "blocking",
    "certificates",
    "claims",
    "costs",
    "fork_effects",
    "fork_overrides",
    "inputs",
    "open_journal",
    "orchestra",
    "planning",
    "project",
    "result",
    "reuse",
    "run",
    "run_queries",
    "run_status",
    "snapshot_store",
    "whatif",
    "workers",
    "workflow_certificates",
]
