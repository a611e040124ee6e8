"""Folders of the fleet: the XDG folders for models, logs and sockets
(https://specifications.freedesktop.org/basedir-spec).
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestra.core import xdg
from orchestra.core.errors import FleetError

SOCKET_PATH_BYTES = 100
"""A Unix socket's path has at most 107 bytes on Linux and 103 on macOS (`sockaddr_un`). The rest is for the file name.
"""

SOCKET_FILE, LOCK_FILE, CONFIG_FILE = "socket", "lock", "fleet.json"
"""The files of a supervisor in its runtime folder."""


@dataclass(frozen=True, slots=True)
class Folders:
    """The three root folders. Folders are created on demand."""

    cache: Path
    """Weights and downloads. They may be deleted, and are fetched again on demand."""
    state: Path
    """Logs of supervisors and servers."""
    runtime: Path
    """Locks and sockets, private to the user."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Folders:
        """Returns the folders of the environment, with the defaults of the XDG specification.

        Raises:
            InputError: C050, the environment names neither the folders nor a home.
        """
        state = xdg.base_folder(environment, "XDG_STATE_HOME", ".local/state")
        runtime = Path(environment.get("XDG_RUNTIME_DIR") or "")
        cache = xdg.base_folder(environment, "XDG_CACHE_HOME", ".cache")
        return cls(*(root / "orchestra" for root in (cache, state, runtime if runtime.is_absolute() else state)))

    @property
    def models(self) -> Path:
        """One folder per model, named by the digest of its source."""
        return self.cache / "models"

    @property
    def downloads(self) -> Path:
        """Downloads that are not installed yet."""
        return self.cache / "downloads"

    @property
    def adapters(self) -> Path:
        """Copies of adapters by digest, for servers to load, including earlier versions."""
        return self.state / "adapters"

    def runtime_folder(self, digest: str) -> Path:
        """Returns the private folder of the supervisor's files for the fleet `digest`. Creates it."""
        place = self.runtime / "fleets" / digest
        if len(os.fsencode(place)) > SOCKET_PATH_BYTES - len("/socket"):
            path = Path(tempfile.gettempdir()) / f"orchestra-{os.getuid()}"
            make_private(path)  # its owner could replace our folder
            place = path / digest
        make_private(place)
        return place

    def logs(self, digest: str) -> Path:
        """Returns the folder of the logs of the fleet `digest`. Creates it."""
        place = self.state / "fleets" / digest
        make_private(place)
        return place


def is_disk_full(error: OSError) -> bool:
    """Whether an error means that a disk, a quota or a system limit is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def make_private(folder: Path) -> None:
    """Creates a folder that only its owner may enter.

    Raises:
        FleetError: F010, another user owns it, so a socket in it is not trusted.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stat_result = folder.lstat()
    if not stat.S_ISDIR(stat_result.st_mode) or stat_result.st_uid != os.getuid():
        raise FleetError(
            "F010", f"{folder} belongs to another user", hint="set XDG_RUNTIME_DIR to a folder of your own"
        )
    if stat.S_IMODE(stat_result.st_mode) & 0o077:
        folder.chmod(0o700)
