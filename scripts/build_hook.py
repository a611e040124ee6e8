"""Build hook of both distributions: the index of the packaged agents' weights, and which files a distribution contains.

`orchestra-slm` (pyproject.toml) contains the agents without their weights, and the index of the weights.
`orchestra-slm-agents` (distributions/agents/pyproject.toml) contains the agents with their weights and the same index.
The index has the digest of each file of weights and one digest of all other files, so that an installation can decide
whether both are of the same build.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

INDEX = "weights.json"
"""The file of the index, in the folder of the agents (`orchestra.core.agent_weights`)."""
WEIGHT_SUFFIXES = frozenset({".npz", ".safetensors"})
PROVENANCE_FILE = "learnt_from.json"
"""Fingerprints of the training rows: needed with the weights only, and 1.2 MB compressed."""


def agent_files(agents: Path) -> Iterator[Path]:
    """Yields the files of the packaged agents: without the builders of their training data."""
    for path in sorted(agents.glob("*/**/*")):
        parts = path.relative_to(agents).parts
        if path.is_file() and parts[1] != "data" and "__pycache__" not in parts and not path.name.startswith("."):
            yield path


def is_weights(path: Path) -> bool:
    """Returns whether a file belongs to the second distribution only."""
    return path.suffix in WEIGHT_SUFFIXES or path.name == PROVENANCE_FILE


def build_index(agents: Path) -> str:
    """Returns the index of a folder of agents."""
    files: dict[str, dict[str, Any]] = {}
    cards = hashlib.sha256()
    for path in agent_files(agents):
        name, data = path.relative_to(agents).as_posix(), path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        if is_weights(path):
            files[name] = {"sha256": sha256, "bytes": len(data)}
        else:
            cards.update(f"{name} {sha256}\n".encode())
    index = {"format": "orchestra/agent-weights/v1", "cards": cards.hexdigest(), "files": files}
    return json.dumps(index, indent=1) + "\n"


class AgentsBuildHook(BuildHookInterface[Any]):
    """Adds the index, and to `orchestra-slm-agents` the agents."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Chooses the files before the build."""
        root = Path(self.root)
        own = self.metadata.name == "orchestra-slm"
        agents = root / "agents" if own else root.parent.parent / "agents"
        if version == "editable" or (own and (agents / INDEX).is_file()):  # the latter in an unpacked sdist
            return
        self._folder = tempfile.TemporaryDirectory()
        index = Path(self._folder.name) / INDEX
        index.write_text(build_index(agents), "utf-8")
        included: dict[str, str] = build_data["force_include"]
        if own:
            target = "agents" if self.target_name == "sdist" else "orchestra/_builtin/agents"
            included[str(index)] = f"{target}/{INDEX}"
        else:
            target = "orchestra_slm_agents/agents"
            included[str(index)] = f"{target}/{INDEX}"
            included |= {str(path): f"{target}/{path.relative_to(agents).as_posix()}" for path in agent_files(agents)}

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes the temporary index."""
        if folder := getattr(self, "_folder", None):
            folder.cleanup()
