"""A TCP proxy between a test and its database: it passes, delays, falls silent without a word, cuts off, refuses.

It runs in a thread with an event loop of its own, so that any test may use it, whatever that runs on. Each method
returns once it is done.
"""

import asyncio
import socket
import struct
from collections.abc import Collection, Coroutine, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

_READ_BYTES = 65536
_SECONDS = 10


class _Link:
    """One client's connection, and the one to the server that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter | None) -> None:
        self.writers = [client] if server is None else [client, server]
        self.port = 0 if server is None else int(server.get_extra_info("sockname")[1])
        self.silent = server is None

    def reset(self) -> None:
        for writer in self.writers:
            peer: socket.socket | None = writer.get_extra_info("socket")
            if peer is not None and peer.fileno() >= 0:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # an RST, not a FIN
            writer.transport.abort()


class Proxy:
    """Forwards its own port of 127.0.0.1 to another one.

    Attributes:
        port: where clients connect.
        delay_seconds: how long every chunk takes on its way, in both directions.
        asked_count: how many chunks have come from clients: on a quiet line, as many as round trips.
    """

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self.delay_seconds = 0.0
        self.asked_count = 0
        self._server_port = server_port
        self._links: set[_Link] = set()
        self._silent_to_new = False
        self._listening: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.accept()

    @property
    def ports(self) -> frozenset[int]:
        """The ports from which the connections that pass come to the server: `client_port` in pg_stat_activity."""
        return frozenset(link.port for link in list(self._links) if not link.silent)

    @property
    def link_count(self) -> int:
        """How many clients are connected."""
        return len(self._links)

    def fall_silent(self, ports: Collection[int] | None = None) -> None:
        """Carry nothing any more, for ever, on connections that are open, and tell nobody: they are half-open.

        `ports` names those that fall silent, as `ports` gives them. None: all, and new ones too until `accept`.
        """
        self._run(self._fall_silent(ports))

    def reset(self) -> None:
        """Cut off every connection with an RST."""
        self._run(self._reset())

    def refuse(self) -> None:
        """Let nobody connect until `accept`; those who are connected stay so."""
        self._run(self._refuse())

    def accept(self) -> None:
        """Let clients connect, and carry what they send."""
        self._run(self._accept())

    def close(self) -> None:
        """Cut everybody off, and end."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()

    def _run(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(_SECONDS)

    async def _fall_silent(self, ports: Collection[int] | None) -> None:
        self._silent_to_new = self._silent_to_new or ports is None
        for link in self._links:
            link.silent = link.silent or ports is None or link.port in ports

    async def _reset(self) -> None:
        for link in self._links:
            link.reset()

    async def _refuse(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    async def _accept(self) -> None:
        self._silent_to_new = False
        if self._listening is None:
            self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = int(self._listening.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        await self._refuse()
        await self._reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link = _Link(to_client, None)
        with suppress(ConnectionError, asyncio.CancelledError):
            if self._silent_to_new:
                self._links.add(link)
                await self._carry(from_client, to_client, link)
                return
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
            link = _Link(to_client, to_server)
            self._links.add(link)
            await asyncio.gather(self._carry(from_client, to_server, link), self._carry(from_server, to_client, link))
        link.reset()
        self._links.discard(link)
        self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link) -> None:
        while data := await reader.read(_READ_BYTES):
            self.asked_count += writer is not link.writers[0]
            await asyncio.sleep(self.delay_seconds)
            if not link.silent:
                writer.write(data)
                await writer.drain()
        if not link.silent:
            writer.write_eof()


@contextmanager
def proxy_to(server_port: int) -> Iterator[Proxy]:
    """Hold a proxy to a port of 127.0.0.1."""
    proxy = Proxy(server_port)
    try:
        yield proxy
    finally:
        proxy.close()
