"""How processes tell each other that tasks were committed. A notice is a hint: what it says stands in the rows.

A process that hears nothing finds the tasks of others by asking, every `poll_seconds`. So notices may be lost, merged
or late, and nothing is ever wrong: they only save time.
"""

from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Protocol


class Heard(Enum):
    """What a listening connection may hear."""

    TASKS = "another process has committed tasks"
    ECHO = "this process has sent a ping"


class Ear(Protocol):
    """A connection that listens."""

    async def hear(self) -> frozenset[Heard]:
        """Wait until something is heard, and give it; what was heard twice is given once.

        Raises an error of the driver's when the connection is lost.
        """
        ...


class Notices(Protocol):
    """Tells the other processes on a database of tasks, and hears them."""

    async def send(self) -> None:
        """Tell the others that there may be tasks for them: in a transaction of its own, never in a user's."""
        ...

    def send_blocking(self) -> None:
        """Do the same in this thread."""
        ...

    async def ping(self) -> None:
        """Send this process's own ear an echo, over another connection."""
        ...

    def listening(self) -> AbstractAsyncContextManager[Ear]:
        """Hold a connection that listens. What is sent once it is held is heard, or the connection is lost."""
        ...

    def start_over(self) -> None:
        """Be another process than the one that this one was forked from."""
        ...
