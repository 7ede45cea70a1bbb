"""Time for the tests of cron: a clock that a test moves, and that wakes who sleeps by it."""

import anyio
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from hookware.config import Config
from hookware.core.cron import CronEntry
from hookware.events import CronFired, Event, Events
from hookware.health import Health
from hookware.scheduled import Cron
from hookware.scheduler import Planned, Scheduler, planned
from hookware.store.sql.outbox import Outbox
from tests.databases import Look
from tests.samples import SteppedEnv

START_US = 1_767_225_600_000_000
"""2026-01-01 00:00 UTC, a Thursday."""

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


class Clockwork(SteppedEnv):
    """Sleeps end when the test has moved the clock far enough; failpoints raise where the test says so.

    `slept` are the sleeps of the scheduler.
    """

    def __init__(self) -> None:
        super().__init__(START_US)
        self.slept: list[float] = []
        self.broken: dict[str, Exception] = {}
        self.passed: list[str] = []
        self._moved = anyio.Event()
        self._fell_asleep = anyio.Event()

    async def sleep(self, seconds: float) -> None:
        if "Scheduler" in (anyio.get_current_task().name or ""):
            self.slept.append(seconds)
            self._fell_asleep.set()
        until = self.monotonic() + seconds
        while self.monotonic() < until:
            await self._moved.wait()

    def random(self) -> float:
        return 0.0

    def fp(self, name: str) -> None:
        self.passed.append(name)
        if name in self.broken:
            raise self.broken.pop(name)

    def move(self, seconds: float) -> None:
        """Move the clock, and wake who sleeps."""
        self.advance(seconds)
        self._fell_asleep = anyio.Event()
        self._moved.set()
        self._moved = anyio.Event()

    async def until_asleep(self) -> None:
        """Wait until the scheduler has fallen asleep since the clock was moved."""
        with anyio.fail_after(10):
            await self._fell_asleep.wait()


def entry(url: str, schedule: str, timezone: str = "UTC") -> CronEntry:
    """Give an entry."""
    return CronEntry(url=url, schedule=schedule, timezone=timezone)


class Post:
    """One process that fires entries, step by step; `database_look` sees what is committed."""

    def __init__(
        self, engine: Engine | AsyncEngine, look: Look, *entries: CronEntry, env: Clockwork | None = None,
        plans: list[Planned] | None = None, config: Config | None = None,
    ) -> None:  # fmt: skip
        self.env = env or Clockwork()
        self.fired: list[CronFired] = []
        events = Events()
        events.subscribe(self._see)
        self.outbox = Outbox(engine, env=self.env, config=config or Config(), events=events)
        self.outbox.cron_entries = lambda: entries
        self.health = Health(self.env)
        self.scheduler = Scheduler(self.outbox, planned(entries) if plans is None else plans, self.health)
        self.database_look = look

    @property
    def cron(self) -> Cron:
        """What people do with the entries."""
        return Cron(self.outbox)

    def _see(self, event: Event) -> None:
        if isinstance(event, CronFired):
            self.fired.append(event)

    async def look(self, seconds: float = 0.0) -> float:
        """Move the clock, and let the scheduler look once; give how long it would sleep."""
        await self.outbox.prepare()
        self.env.advance(seconds)
        return await self.scheduler.fire_due()

    def tasks(self) -> list[tuple[str, float]]:
        """Give the tasks there are: where they go, and their time, in hours since the start."""
        rows = self.database_look.rows(
            "SELECT url, eta_us FROM hookware_task WHERE queue_name = '__cron' ORDER BY eta_us, url"
        )
        return [(url, (eta_us - START_US) / HOUR_US) for url, eta_us in rows]

    def end_tasks(self) -> None:
        """Let every task have ended."""
        self.database_look.execute("DELETE FROM hookware_task")
