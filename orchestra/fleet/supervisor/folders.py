"""Where the fleet keeps things: the XDG folders for models, logs and sockets
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
"""A Unix socket's path has at most 107 bytes on Linux and 103 on macOS (`sockaddr_un`); some are kept for the name."""

SOCKET_FILE, LOCK_FILE, CONFIG_FILE = "socket", "lock", "fleet.json"
"""What a supervisor and its clients meet by."""


@dataclass(frozen=True, slots=True)
class Folders:
    """The three roots. Nothing is made before it is needed."""

    cache: Path
    """Weights and downloads: may be deleted, is then fetched again."""
    state: Path
    """Logs of supervisors and servers."""
    runtime: Path
    """Locks and sockets; private to the user."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Folders:
        """The folders that the environment names, with the defaults of the XDG specification. Raises `InputError` C050
        where it names none,
        and no home.
        """
        state = xdg.base_folder(environment, "XDG_STATE_HOME", ".local/state")
        runtime = Path(environment.get("XDG_RUNTIME_DIR") or "")
        cache = xdg.base_folder(environment, "XDG_CACHE_HOME", ".cache")
        return cls(*(root / "orchestra" for root in (cache, state, runtime if runtime.is_absolute() else state)))

    @property
    def models(self) -> Path:
        """One folder a model, named by the digest of its source."""
        return self.cache / "models"

    @property
    def downloads(self) -> Path:
        """What was fetched and is not yet a model; emptied when it is."""
        return self.cache / "downloads"

    @property
    def adapters(self) -> Path:
        """Adapters by their digests: what servers load from, and what agents had before."""
        return self.state / "adapters"

    def runtime_folder(self, digest: str) -> Path:
        """The private folder where the supervisor of the fleet `digest` and its clients meet; made if it is not there."""
        place = self.runtime / "fleets" / digest
        if len(os.fsencode(place)) > SOCKET_PATH_BYTES - len("/socket"):
            shared = Path(tempfile.gettempdir()) / f"orchestra-{os.getuid()}"
            make_private(shared)  # whoever owns it could put another folder in the place of ours
            place = shared / digest
        make_private(place)
        return place

    def logs(self, digest: str) -> Path:
        """The folder of the logs of the fleet `digest`; made if it is not there."""
        place = self.state / "fleets" / digest
        make_private(place)
        return place


def is_disk_full(error: OSError) -> bool:
    """Whether a disk, a quota or a limit of the system has no room for what was to be written."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def make_private(folder: Path) -> None:
    """Makes a folder that only its owner may enter.

    Raises `FleetError` F010 where someone else owns it: a socket in a stranger's folder is not to be trusted.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise FleetError(
            "F010", f"{folder} belongs to someone else", hint="set XDG_RUNTIME_DIR to a folder of your own"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)
