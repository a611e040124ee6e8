"""Closes the listening sockets of a CPU worker to the other users of the machine.

vLLM's worker joins distributed groups even if it is alone. PyTorch's gloo opens a listening socket for each of them:
thirteen ports of 127.0.0.1 in vLLM 0.32, without authentication. All users of the machine can connect to them. gloo
expects no peer and reads no message of theirs, but it keeps each connection until the process has no more descriptors.

A worker that is alone has no peers. So a socket filter (`SO_ATTACH_FILTER`, socket(7)) drops all packets to these
sockets. The sockets remain open, because gloo's event loop would spin on closed ones.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SO_ATTACH_FILTER, SO_LOCK_FILTER = 26, 44
"""Linux constants (asm-generic/socket.h) that Python does not define."""
DROP_FILTER = struct.pack("=HBBI", 0x06, 0, 0, 0)
"""One instruction of classic BPF, `struct sock_filter`: return 0, which drops the packet."""
FAMILIES = (socket.AF_INET, socket.AF_INET6)
DESCRIPTOR_FOLDER = "/proc/self/fd"


@contextmanager
def filter_new_sockets() -> Iterator[None]:
    """Filters the sockets that started to listen inside the block, at its end. Does nothing on systems other than
    Linux.
    """
    before = {inode for _, inode in _sockets()}
    try:
        yield
    finally:
        for descriptor, inode in _sockets():
            if inode not in before:
                attach_drop_filter(descriptor)


def attach_drop_filter(descriptor: int) -> bool:
    """Drops all packets to a listening TCP socket, and returns whether the descriptor is one. Raises `OSError` if the
    kernel refuses.
    """
    with socket.socket(fileno=os.dup(descriptor)) as socket_copy:
        if socket_copy.family not in FAMILIES or not socket_copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return False
        program = ctypes.create_string_buffer(DROP_FILTER, len(DROP_FILTER))
        socket_copy.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(program)))
        socket_copy.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)
        return True


def _sockets() -> Iterator[tuple[int, int]]:
    """Yields the sockets of this process: descriptor and inode; none without /proc."""
    names = os.listdir(DESCRIPTOR_FOLDER) if os.path.isdir(DESCRIPTOR_FOLDER) else []
    for descriptor in map(int, names):
        with suppress(OSError):  # the descriptor of the listing itself is closed by now
            stat_result = os.fstat(descriptor)
            if stat.S_ISSOCK(stat_result.st_mode):
                yield descriptor, stat_result.st_ino
