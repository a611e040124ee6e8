"""Checks which user listens on a loopback port, so that keys and requests are not sent to another user's process.

A server's port is on its command line, which all users can read, seconds before it listens there. The port is free
again once the server has ended. Linux reports the owner of a socket (sock_diag(7)). `/proc/net/tcp` does too, and took
6 ms where this takes 20 µs.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys

SOCK_DIAG = 4
"""NETLINK_SOCK_DIAG, which Python does not define."""
BY_FAMILY, REQUEST_FLAG = 20, 1
"""SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST."""
NETLINK_HEADER, DIAG_REQUEST, DIAG_RESPONSE = (
    struct.Struct("=IHHII"),
    struct.Struct("=BBBBI2s2s16s16sIII"),
    struct.Struct("=4x48x12xI"),
)
"""`nlmsghdr`, `inet_diag_req_v2`, and the user of `inet_diag_msg`."""
ANY_COOKIE = 0xFFFFFFFF
LOOPBACK = socket.inet_aton("127.0.0.1")
ANY_ADDRESS = socket.inet_aton("0.0.0.0")  # noqa: S104 - of a socket that listens, the other end
ROOT_UID = 0
"""The owner of connections that are not accepted yet. Root can read the key anyway."""


def is_own_port(port: int, client_port: int = 0) -> bool:
    """Whether no other user listens on a port of 127.0.0.1, or has accepted the connection from the port `caller`.

    Returns True if the system does not report the owner.
    """
    if sys.platform != "linux":
        return True
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as netlink_socket:
            netlink_socket.settimeout(1.0)
            owners = [
                _socket_owner(netlink_socket, port, 0),
                _socket_owner(netlink_socket, port, client_port) if client_port else None,
            ]
    except OSError:
        return True
    return all(user in (None, ROOT_UID, os.getuid()) for user in owners)


def _socket_owner(netlink: socket.socket, port: int, client_port: int) -> int | None:
    """Returns the user of the socket that accepted a connection from `caller`, or that listens; None without one."""
    ends = struct.pack("!H", port), struct.pack("!H", client_port), LOOPBACK, LOOPBACK if client_port else ANY_ADDRESS
    body = DIAG_REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, ANY_COOKIE, *ends, 0, ANY_COOKIE, ANY_COOKIE)
    netlink.send(NETLINK_HEADER.pack(NETLINK_HEADER.size + len(body), BY_FAMILY, REQUEST_FLAG, 0, 0) + body)
    response = netlink.recv(4096)
    if NETLINK_HEADER.unpack_from(response)[1] != BY_FAMILY:  # an error, usually ENOENT
        code = -struct.unpack_from("=i", response, NETLINK_HEADER.size)[0]
        if code != errno.ENOENT:
            raise OSError(code, os.strerror(code))
        return None
    user: int = DIAG_RESPONSE.unpack_from(response, NETLINK_HEADER.size)[0]
    return user
