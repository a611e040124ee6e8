"""Where the agents, workflows and fleets are: folders of the project and of the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, TypeAlias

ResourceKind: TypeAlias = Literal["agents", "workflows", "configs"]
RESOURCE_KINDS: tuple[ResourceKind, ...] = ("agents", "workflows", "configs")
RESOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
FLEET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Fleets may have a dot, as names of models have: `qwen-0.5b`."""


def builtin_folder(kind: ResourceKind) -> Path:
    """Returns the folder of packaged agents, workflows or fleets: in the wheel, or next to the package in a source
    tree. For agents it is the folder with their weights, if they are installed.
    """
    folder = package_data(kind)
    if kind != "agents" or folder.parent == Path(__file__).parents[2]:  # a checkout has the weights in place
        return folder
    from orchestra.core.agent_weights import resolve_agents_folder

    return resolve_agents_folder(folder)


def package_data(kind: ResourceKind | Literal["documents"]) -> Path:
    """Returns a folder of data in the wheel, or of the source tree. `documents` are those of `orchestra demo`."""
    package = Path(__file__).parents[1]
    path = package / "_builtin" / kind
    return path if path.is_dir() else package.parent / ("examples/documents" if kind == "documents" else kind)


def list_resources(kind: ResourceKind, folder: Path) -> list[Path]:
    """Returns the resources of a kind in a folder, by name."""
    return [path for path in sorted(folder.iterdir()) if is_resource(kind, path)] if folder.is_dir() else []


def is_resource(kind: ResourceKind, path: Path) -> bool:
    """Returns whether a path is a resource of a kind."""
    if kind == "agents":
        return RESOURCE_NAME.fullmatch(path.name) is not None and (path / "agent.yaml").is_file()
    pattern = FLEET_NAME if kind == "configs" else RESOURCE_NAME
    return path.suffix in (".yaml", ".yml") and pattern.fullmatch(path.stem) is not None and path.is_file()
