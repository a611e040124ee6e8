"""Filtered listening sockets: connections fail, and other sockets are not changed."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.fleet.vllm_cpu import socket_filter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="socket filters are Linux's")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def listening(stack: ExitStack, family: int = socket.AF_INET) -> socket.socket:
    made = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
    made.bind(("127.0.0.1", 0) if family == socket.AF_INET else ("::1", 0))
    made.listen(16)
    return made


def connects(to: socket.socket) -> bool:
    """Returns whether a connection succeeds. A dropped packet is never answered, also on the loopback."""
    with socket.socket(to.family, socket.SOCK_STREAM) as caller:
        caller.settimeout(0.05)
        try:
            caller.connect(to.getsockname())
        except TimeoutError:
            return False
        return True


def test_filter_affects_new_listeners_only(stack: ExitStack) -> None:
    before = listening(stack)
    with socket_filter.filter_new_sockets():
        inside = listening(stack)
    assert (connects(before), connects(inside)) == (True, False)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["listen", "bound", "unix", "file", "udp", "closed"]), max_size=12))
def test_drop_filter_affects_listening_tcp_only(kinds: list[str]) -> None:
    with ExitStack() as stack:
        before, made, others = listening(stack), list[socket.socket](), list[socket.socket]()
        with socket_filter.filter_new_sockets():
            for kind in kinds:
                match kind:
                    case "listen":
                        made.append(listening(stack))
                    case "bound":
                        others.append(stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM)))
                        others[-1].bind(("127.0.0.1", 0))
                    case "unix":
                        stack.enter_context(socket.socketpair()[0])
                    case "udp":
                        stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(("127.0.0.1", 0))
                    case "file":
                        stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
                    case _:
                        listening(stack).close()
        assert not any(map(connects, made))
        for one in others:  # a socket that listens later, like that of an HTTP server, is not filtered
            one.listen(1)
        assert all(map(connects, (before, *others)))


def test_drop_filter_keeps_existing_connection(stack: ExitStack) -> None:
    server = listening(stack)
    caller = stack.enter_context(socket.create_connection(server.getsockname()))
    accepted = stack.enter_context(server.accept()[0])
    assert socket_filter.attach_drop_filter(server.fileno())
    caller.sendall(b"more")
    assert accepted.recv(4) == b"more"


def test_drop_filter_cannot_be_removed(stack: ExitStack) -> None:
    server = listening(stack)
    socket_filter.attach_drop_filter(server.fileno())
    with pytest.raises(PermissionError):
        server.setsockopt(socket.SOL_SOCKET, 27, 0)  # SO_DETACH_FILTER


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_drop_filter_covers_both_families(family: int, stack: ExitStack) -> None:
    try:
        server = listening(stack, family)
    except OSError:
        pytest.skip("this machine has no such loopback")
    assert socket_filter.attach_drop_filter(server.fileno())
    assert not connects(server)
