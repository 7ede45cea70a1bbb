"""An aiosqlite connection without its thread: calls run in the event loop, which may turn to others between them.

So the statements of several transactions interleave by the seed, locks are waited for in virtual time, and a process
can die between any two statements.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

import aiosqlite

_STATEMENTS = frozenset({"execute", "executemany", "commit", "rollback"})
_BUSY_TIMEOUT = "PRAGMA busy_timeout ="


class Line(Protocol):
    """What is between a process and the file."""

    async def before(self, connection: "InlineConnection", what: str) -> None:
        """Let time pass, or fail."""
        ...

    async def after(self, connection: "InlineConnection", what: str) -> None:
        """Take note of what was done, let time pass, or fail all the same."""
        ...

    def waits(self) -> Iterator[float]:
        """Give the pauses after which a lock is tried again, as long as it may be waited for."""
        ...

    def opened(self, connection: "InlineConnection") -> None:
        """Take note of a connection."""
        ...

    def closed(self, connection: "InlineConnection") -> None:
        """Take note of its end."""
        ...


class InlineConnection(aiosqlite.Connection):
    """A connection of one process. `by_app`: it is the app's, not hookware's own."""

    def __init__(self, connector: Callable[[], sqlite3.Connection], line: Line, *, by_app: bool) -> None:
        super().__init__(connector, 64)
        self.by_app = by_app
        self.changes = 0
        self._line = line

    def __await__(self) -> Generator[Any, None, aiosqlite.Connection]:
        return self._open().__await__()

    def __del__(self) -> None:
        self.cut()

    @property
    def in_transaction(self) -> bool:
        """Whether it is in a transaction; one that is closed is in none."""
        return self._connection is not None and self._connection.in_transaction

    def take_changes(self) -> int:
        """Count the rows that were changed since this was asked last."""
        before, self.changes = self.changes, 0 if self._connection is None else self._connection.total_changes
        return self.changes - before

    def cut(self) -> None:
        """Close it at once, whatever runs: what was not committed is gone."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self._line.closed(self)

    async def close(self) -> None:
        """Close it."""
        self.cut()

    def stop(self) -> None:
        """Close it where nobody can wait."""
        self.cut()

    async def _open(self) -> "InlineConnection":
        await asyncio.sleep(0)
        self._connection = self._connector()
        self._line.opened(self)
        return self

    async def _execute(self, fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
        what = fn.__name__
        if what not in _STATEMENTS:
            return fn(*args, **options)
        if args and isinstance(args[0], str) and args[0].startswith(_BUSY_TIMEOUT):
            args = (f"{_BUSY_TIMEOUT} 0",)  # nobody else runs while this process waits
        await self._line.before(self, what)
        if self._connection is None:
            raise sqlite3.OperationalError("Connection closed")
        result = await self._through_locks(fn, *args, **options)
        await self._line.after(self, what)
        return result

    async def _through_locks(self, fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Wait for a lock as SQLite does, in virtual time."""
        waits = self._line.waits()
        while True:
            try:
                return fn(*args, **options)
            except sqlite3.OperationalError as error:
                seconds = next(waits, None)
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or seconds is None:
                    raise
            await asyncio.sleep(seconds)
            if self._connection is None:
                raise sqlite3.OperationalError("Connection closed")
