"""Runs a command that ends with its parent: `python die_with_parent.py PARENT COMMAND…`.

It is started by its path and imports no module of this package. On Linux the kernel sends SIGTERM when the parent ends,
for any reason (prctl(2), PR_SET_PDEATHSIG; it survives execve). On other systems the next supervisor kills leftovers
(`orchestra.core.child_process.kill_leftovers`).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Requests the signal, checks that the parent is still alive, and executes the command."""
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the parent process has ended")
    os.execv(command[0], command)  # noqa: S606 - the command is the supervisor's own, never a user's text


if __name__ == "__main__":
    main(sys.argv[1:])
