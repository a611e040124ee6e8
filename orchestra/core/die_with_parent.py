"""Runs a command that dies with its parent: `python guard.py PARENT COMMAND…`. Started by its path; imports nothing of ours.

On Linux the kernel sends SIGTERM when the parent is gone, however it went (prctl(2), PR_SET_PDEATHSIG; it survives execve).
Elsewhere the next supervisor ends what an earlier one left (`orchestra.core.child_process.kill_leftovers`).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Asks the kernel for the signal, looks whether the parent went in the meantime, and becomes the command."""
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the supervisor has gone")
    os.execv(command[0], command)  # noqa: S606 - the command is the supervisor's own, never a user's text


if __name__ == "__main__":
    main(sys.argv[1:])
