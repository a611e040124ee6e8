"""Weights of the packaged agents: which are installed, and where.

A checkout has them in `agents/`. The distribution `orchestra-slm` has the agents without their weights, and an index of
the weights with digests. The weights are in a second distribution, `orchestra-slm-agents`, which has the agents with
their weights: either pip installed it (a folder of data on `sys.path`), or `orchestra agents install` unpacked it into
the user's data folder. It is used only if its index is that of this installation. So the agents and their digests are
always those of the checkout that both distributions were built from.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path

import msgspec

from orchestra.core import xdg
from orchestra.core.errors import FleetError, InputError
from orchestra.core.quantities import format_size

INDEX_FILE = "weights.json"
"""The index, in the folder of the packaged agents. A checkout has none."""
PACKAGE = "orchestra_slm_agents"
"""The folder of the second distribution on `sys.path`. It has no code; it is found, and not imported."""
DISTRIBUTION = "orchestra-slm-agents"
INSTALL_HINT = "orchestra agents install, or pip install 'orchestra-slm[agents]'"


class WeightFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of weights."""

    sha256: str
    bytes: int


class WeightsIndex(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The weights of the packaged agents (`scripts/build_hook.py` writes it)."""

    format: str
    cards: str
    """Digest of the names and digests of all other files of the agents."""
    files: dict[str, WeightFile]
    """By path in the folder of the agents."""

    @property
    def total_bytes(self) -> int:
        """The size of all weights."""
        return sum(file.bytes for file in self.files.values())


def read_index(agents: Path) -> WeightsIndex | None:
    """Returns the index of a folder of agents; None without one, as in a checkout."""
    try:
        return msgspec.json.decode((agents / INDEX_FILE).read_bytes(), type=WeightsIndex)
    except (OSError, msgspec.MsgspecError):
        return None


def resolve_agents_folder(packaged: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Returns the folder of the packaged agents with their weights, if they are installed; else the one without.

    Args:
        packaged: The folder of agents in the package.
        environ: The environment, with the user's data folder.
    """
    try:
        index = (packaged / INDEX_FILE).read_bytes()
    except OSError:
        return packaged
    for folder in _candidates(index, environ):
        with contextlib.suppress(OSError):
            if (folder / INDEX_FILE).read_bytes() == index:
                return folder
    return packaged


def data_folder(index: bytes, environ: Mapping[str, str] = os.environ) -> Path:
    """Returns the folder for agents that `orchestra agents install` installs, named by the digest of their index.

    Raises:
        InputError: C050: the environment names neither a data folder nor a home.
    """
    data = xdg.base_folder(environ, "XDG_DATA_HOME", ".local/share")
    return data / "orchestra" / "agents" / hashlib.sha256(index).hexdigest()[:16]


def _candidates(index: bytes, environ: Mapping[str, str]) -> Iterator[Path]:
    spec = PathFinder.find_spec(PACKAGE)
    for place in (spec and spec.submodule_search_locations) or ():
        yield Path(place) / "agents"
    with contextlib.suppress(InputError):
        yield data_folder(index, environ)


def missing_weights(agent: Path | None) -> dict[str, int]:
    """Returns the files of weights that an agent of the package lacks, with their sizes in bytes; empty for other
    agents.

    Args:
        agent: The folder of the agent.
    """
    if agent is None or (index := read_index(agent.parent)) is None:
        return {}
    prefix = f"{agent.name}/"
    return {
        name.removeprefix(prefix): file.bytes
        for name, file in index.files.items()
        if name.startswith(prefix) and not (agent.parent / name).is_file()
    }


def require_weights(agent: str, folder: Path | None) -> None:
    """Raises `FleetError` A025 if an agent of the package lacks its weights."""
    if missing := missing_weights(folder):
        size = format_size(sum(missing.values()))
        raise FleetError("A025", f"the weights of {agent!r} are not installed ({size})", hint=INSTALL_HINT)
