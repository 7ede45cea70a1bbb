"""The proxy does to connections what tests of lost networks rely on."""

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from threading import Thread

import pytest

from tests.proxy import Proxy, proxy_to
from tests.running import eventually


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Answer every chunk with itself."""

    def echo(peer: socket.socket) -> None:
        with peer:
            try:
                while data := peer.recv(100):
                    peer.sendall(data)
            except ConnectionError:
                pass

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:
                return
            Thread(target=echo, args=(peer,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        Thread(target=serve, args=(listening,), daemon=True).start()
        yield listening
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(server: socket.socket) -> Iterator[Proxy]:
    with proxy_to(server.getsockname()[1]) as proxy:
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def answers(peer: socket.socket) -> bool:
    peer.sendall(b"x")
    return peer.recv(1) == b"x"


def is_silent(peer: socket.socket) -> bool:
    peer.settimeout(0.05)
    try:
        return not answers(peer) and False
    except TimeoutError:
        return True
    finally:
        peer.settimeout(10)


def test_it_passes_what_is_sent_and_the_end_of_it(proxy: Proxy) -> None:
    with connect(proxy) as peer:
        assert answers(peer)
        peer.shutdown(socket.SHUT_WR)
        assert peer.recv(1) == b""


def test_a_silent_connection_stays_open_and_carries_nothing_and_its_neighbour_goes_on(proxy: Proxy) -> None:
    with connect(proxy) as silent:
        assert answers(silent)
        ports = proxy.ports
        with connect(proxy) as other:
            assert answers(other)
            proxy.fall_silent(ports)
            assert is_silent(silent)
            assert answers(other)
            proxy.accept()
            assert is_silent(silent)


def test_silent_to_all_it_takes_connections_and_says_nothing_until_it_accepts(proxy: Proxy) -> None:
    proxy.fall_silent()
    with connect(proxy) as peer:
        assert is_silent(peer)
    proxy.accept()
    with connect(proxy) as peer:
        assert answers(peer)


def test_a_reset_is_one(proxy: Proxy) -> None:
    with connect(proxy) as peer:
        assert answers(peer)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
    eventually(lambda: not proxy.ports)


def test_it_refuses_new_connections_and_keeps_those_it_has(proxy: Proxy) -> None:
    port = proxy.port
    with connect(proxy) as peer:
        assert answers(peer)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError), connect(proxy):
            pass
        assert answers(peer)
    proxy.accept()
    assert proxy.port == port
    with closing(connect(proxy)) as peer:
        assert answers(peer)


def test_a_delay_counts_in_both_directions(proxy: Proxy) -> None:
    with connect(proxy) as peer:
        proxy.delay_seconds = 0.05
        began = time.monotonic()
        assert answers(peer)
        assert time.monotonic() - began >= 0.1
