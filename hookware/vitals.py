"""How the loops of a process are, for probes: written by whoever runs them, read by whoever is asked."""

from collections.abc import Awaitable, Callable
from enum import Enum

from hookware.asking import Asking


class Phase(Enum):
    """Where a lifespan is."""

    BEFORE = "no lifespan has run in this process"
    RUNNING = "running"
    STOPPING = "hookware is stopping"
    ENDED = "hookware has stopped"


class Vitals:
    """What is known of one Hookware in this process.

    Args:
        database: asks the database for a sign of life.

    Attributes:
        phase: where its lifespan is.
        failing: gives the names of the loops that are not well.
        ended: the loops that have ended before they were asked to.
    """

    def __init__(self, database: Asking[bool]) -> None:
        self.database = database
        self.phase = Phase.BEFORE
        self.failing: Callable[[], list[str]] = list
        self.ended: list[str] = []

    def begin(self, failing: Callable[[], list[str]]) -> None:
        """Note that loops start, and who knows which of them fail."""
        self.phase, self.failing, self.ended = Phase.RUNNING, failing, []

    def stop(self) -> None:
        """Note that they are asked to end."""
        self.phase = Phase.STOPPING

    def end(self) -> None:
        """Note that nothing runs any more."""
        self.phase, self.failing = Phase.ENDED, list

    async def watch(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a loop, and note it if that ends although nobody has asked it to."""
        try:
            await run()
        finally:
            if self.phase is Phase.RUNNING:
                self.ended.append(name)
