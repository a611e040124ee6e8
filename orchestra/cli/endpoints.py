"""Whether somebody listens at an endpoint: a connection is opened and closed, and nothing is sent."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

CONNECT_TIMEOUT = 3.0


def connection_error(address: str) -> str:
    """Why nobody takes a connection at an address, in the system's word; empty where somebody does."""
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), CONNECT_TIMEOUT).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""
