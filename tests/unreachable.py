"""A project whose fleet is nowhere, so that only simulated workers answer; its server has a revision, which
certificates contain.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestra.core.settings import Settings

FLEET = """\
schema: orchestra/fleet/v1
name: nowhere
servers: {it: {endpoint: "http://127.0.0.1:9/v1", model: m, max_model_len: 1000, revision: "1"}}
models: {base: it}
"""


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Puts files into a folder, by their paths, beside that fleet and a configuration which takes it."""
    for name, text in {"configs/nowhere.yaml": FLEET, "orchestra.toml": 'fleet = "nowhere"\n', **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def settings(project: Path) -> Settings:
    """Those of the project, with a journal of its own."""
    return Settings.load({"journal": str(project / "runs.db")}, start=project)
