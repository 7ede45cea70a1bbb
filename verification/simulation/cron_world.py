"""A world of processes that fire cron entries: what is real in it, what befalls it, and the evidence of what it did.

Each node runs hookware's dispatcher, reaper and scheduler on one SQLite file. Triggers of the database itself write
down when a task of cron appears and when it ends; the program is not asked.
"""

import asyncio
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hookware.config import Config
from hookware.core.cron import CronEntry
from hookware.core.lifecycle import State
from hookware.core.queue import CRON_QUEUE, CRON_SETTINGS
from hookware.delivery import SCOPE_KEY
from hookware.dispatcher import Dispatcher
from hookware.health import Health
from hookware.reaper import Reaper
from hookware.scheduler import Scheduler, planned
from verification.simulation.faults import Faults
from verification.simulation.loop import NODE
from verification.simulation.node import Node, SimEnv
from verification.simulation.sqlite import SQLiteDatabase
from verification.simulation.world import HEARTBEAT, World

POLL_SECONDS = 4 * 3600.0
LEASE_SECONDS = 4 * 3600.0
GRACE_SECONDS = 3600.0
INTERVAL_URL = "/interval"
_FROZEN_AT_A_FAILPOINT = 0.01
_LONG_SECONDS = (60.0, 600.0, 3000.0, 5400.0, 4 * 3600.0)
_TRIGGERS = f"""
CREATE TABLE sim_cron (id INTEGER PRIMARY KEY, what TEXT NOT NULL, task INTEGER NOT NULL, url TEXT, eta_us INTEGER);
CREATE TRIGGER sim_fired AFTER INSERT ON hookware_task WHEN NEW.queue_name = '{CRON_QUEUE}' BEGIN
    INSERT INTO sim_cron (what, task, url, eta_us) VALUES ('fired', NEW.id, NEW.url, NEW.eta_us);
END;
CREATE TRIGGER sim_gone AFTER DELETE ON hookware_task
WHEN OLD.queue_name = '{CRON_QUEUE}' AND OLD.state != {int(State.DEAD)} BEGIN
    INSERT INTO sim_cron (what, task, url, eta_us) VALUES ('ended', OLD.id, OLD.url, OLD.eta_us);
END;
CREATE TRIGGER sim_dead AFTER UPDATE OF state ON hookware_task
WHEN NEW.queue_name = '{CRON_QUEUE}' AND NEW.state = {int(State.DEAD)} AND OLD.state != NEW.state BEGIN
    INSERT INTO sim_cron (what, task, url, eta_us) VALUES ('ended', NEW.id, NEW.url, NEW.eta_us);
END;
"""

FAULTS = Faults(
    error_before=0.02, error_after=0.02, delay_seconds=0.01, hang=0.002, failpoint_kill=0.002, failpoint_error=0.002,
    lost_wakeup=0.3, kill_every=86_400.0, pause_every=43_200.0, restart_every=172_800.0, sleep_every=8 * 86_400.0,
    skew_seconds=7200.0, node_clock_every=86_400.0,
)  # fmt: skip


class Seen(NamedTuple):
    """A line of the evidence: a task appeared, or ended, at a time of the database; microseconds."""

    what: str
    at_us: int
    task: int
    url: str
    eta_us: int


class CronWorld(World):
    """Everything there is in one seed.

    Attributes:
        seen: the evidence, in the order of the commits.
        spans: when one process could do its work without a break, from when on and until when.
        barred: when a frozen process kept the file locked.
    """

    def __init__(self, random: Random, entries: Sequence[CronEntry], began_us: int) -> None:
        config = Config(
            poll_seconds=POLL_SECONDS, lease_seconds=LEASE_SECONDS, cron_grace_seconds=GRACE_SECONDS, concurrency=4,
            queues={CRON_QUEUE: CRON_SETTINGS},
        )  # fmt: skip
        super().__init__(random=random, faults=FAULTS, config=config, make_node=CronNode)
        self.entries, self.began_us = tuple(entries), began_us
        self.seen: list[Seen] = []
        self.spans: list[tuple[float, float]] = []
        self.barred: list[tuple[float, float]] = []
        self._able_since: dict[str, float] = {}
        self._task_count = 0

    def now_us(self) -> int:
        """The database's time."""
        return self.began_us + int(self.loop.time() * 1e6)

    def new_id(self) -> int:
        """Give an id that no task has had."""
        self._task_count += 1
        return self._task_count

    def begin(self, host: str) -> None:
        """Start a process on a host."""
        super().begin(host)
        self._able_since[self.nodes[host].name] = self.loop.time()

    def kill(self, node: str, why: str) -> None:
        """Kill a process."""
        self._end_span(node.removesuffix(HEARTBEAT))
        super().kill(node, why)

    def restart(self, host: str) -> None:
        """Shut a process down in good order, and start the next one."""
        if not self.loop.is_frozen(self.nodes[host].name):
            self._end_span(self.nodes[host].name)
        super().restart(host)

    def pause(self, node: str, seconds: float, why: str = "pause") -> None:
        """Freeze a whole process for a while; not for long with the lock of the file, which would stop everybody."""
        if self.is_dead(node) or self.loop.is_frozen(node):
            return
        if self.database.holds_up_others(node):
            seconds = min(seconds, 30.0)
            self.barred.append((self.loop.time(), self.loop.time() + seconds))
        self._end_span(node)
        super().pause(node, seconds, why)

    def end_spans(self) -> None:
        """Note that the processes that live now have worked until now."""
        for node in list(self._able_since):
            self._end_span(node)

    def _end_span(self, node: str) -> None:
        since = self._able_since.pop(node, None)
        if since is not None:
            self.spans.append((since, self.loop.time()))

    def _thaw(self, *nodes: str) -> None:
        super()._thaw(*nodes)
        if not self.is_dead(nodes[0]) and self.nodes[nodes[0].partition(".")[0]].name == nodes[0]:
            self._able_since[nodes[0]] = self.loop.time()


class CronEnv(SimEnv):
    """A node's door to its world; sometimes the node stands still where its work is half done."""

    def __init__(self, world: CronWorld, node: str) -> None:
        super().__init__(world, node)
        self._cron_world, self._name = world, node

    def new_id(self) -> int:
        return self._cron_world.new_id()

    def fp(self, name: str) -> None:
        super().fp(name)
        world = self._cron_world
        if name.startswith("cron.") and not world.over and world.random.random() < _FROZEN_AT_A_FAILPOINT:
            world.pause(self._name, world.random.choice(_LONG_SECONDS), "pause at a failpoint")


class CronNode(Node):
    """A process that fires cron entries and runs their tasks."""

    def __init__(self, world: World, name: str) -> None:
        assert isinstance(world, CronWorld)
        super().__init__(world, name)
        self._cron_world = world
        self.env = CronEnv(world, name)

    async def _run(self, dispatcher: Dispatcher, reaper: Reaper) -> None:
        world, database = self._cron_world, self._cron_world.database
        assert isinstance(database, CronDatabase)
        scheduler = Scheduler(database.outbox_of(self), planned(world.entries), Health(self.env))
        async with anyio.create_task_group() as loops:
            loops.start_soon(scheduler.run)
            loops.start_soon(dispatcher.run)
            loops.start_soon(reaper.run)
            await self._stop.wait()
            scheduler.stop()
            async with anyio.create_task_group() as stopping:
                stopping.start_soon(reaper.stop)
                await dispatcher.stop()

    async def _enter_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = _app_of(self._cron_world, str(scope["path"]))
        await self._cron_world.database.serve(self, app, scope[SCOPE_KEY], scope, receive, send)


def _app_of(world: CronWorld, path: str) -> ASGIApp:
    """Give an app that takes its time, and sometimes fails."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await asyncio.sleep(world.random.choice((1.0, 60.0, 1500.0)) if path == INTERVAL_URL else 1.0)
        status = 500 if world.random.random() < 0.1 else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        message: Message = {"type": "http.response.body", "body": b""}
        await send(message)

    return app


class CronDatabase(SQLiteDatabase):
    """One file for all nodes, which writes down itself what becomes of the tasks of cron."""

    def __init__(self, world: CronWorld) -> None:
        super().__init__(world)
        self._cron_world = world
        self._looking.executescript(_TRIGGERS)
        self._last_seen = 0

    def look(self, *, by_handler: bool = False) -> None:
        """See what the triggers have written since."""
        world = self._cron_world
        if world.over:
            return
        rows = self._looking.execute("SELECT * FROM sim_cron WHERE id > ? ORDER BY id", (self._last_seen,)).fetchall()
        for number, what, task, url, eta_us in rows:
            self._last_seen = number
            world.seen.append(Seen(what, world.now_us(), task, url, eta_us))
            world.note(what, node=NODE.get(), task=task, url=url, eta=(eta_us - world.began_us) / 1e6)

    def left(self) -> int:
        """Count the tasks that neither are dead nor have ended."""
        (count,) = self._looking.execute(
            "SELECT count(*) FROM hookware_task WHERE state != ?", (int(State.DEAD),)
        ).fetchone()
        return int(count)
