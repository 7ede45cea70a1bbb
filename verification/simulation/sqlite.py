"""SQLAlchemy and SQLite, as the database of a simulated world: the real statements, sessions and units of work.

All processes have one file, and the database a clock of its own.
"""

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from starlette.types import ASGIApp, Receive, Scope, Send

from hookware import TaskContext, async_request_session
from hookware.core.lifecycle import State
from hookware.delivery import Delivery
from hookware.exchange import serve_delivery
from hookware.handoff import HandOff
from hookware.store.base import Store
from hookware.store.sql.async_runner import AsyncRunner
from hookware.store.sql.outbox import Outbox
from hookware.store.sql.runner import ThreadRunner
from hookware.store.sql.store import SQLStore
from hookware.unit_of_work import UnitOfWork
from verification.simulation.engines import GONE, NOTHING, Engines, Holder, connect, template
from verification.simulation.inline import InlineConnection
from verification.simulation.loop import NODE
from verification.simulation.node import Node
from verification.simulation.requests import order
from verification.simulation.watch import Seen, Watch
from verification.simulation.wire import Wire
from verification.simulation.world import Promise, World

T = TypeVar("T")
_SEEN = (
    "SELECT id, state, fence, owner, lease_until_us, attempt_count, crash_count, eta_us, dead_reason FROM hookware_task"
)
_WRITE_EFFECT = text("INSERT INTO sim_effect (task, fence, stands_on) VALUES (:task, :fence, :stands_on)")
_PER_STATEMENT = 0.1  # of the rate per call: a transaction has many statements
_unused: list[Engines] = []


class ClockedOutbox(Outbox):
    """An outbox on a database with a clock of its own, as PostgreSQL has: a node's clock must not matter."""

    def __init__(self, engine: AsyncEngine, world: World, node: Node) -> None:
        super().__init__(engine, env=node.env, config=world.config, events=node.events)
        self.clock = self.own_clock = lambda _connection: world.now_us()
        self._world, self._node = world, node

    @property
    def hand_off(self) -> HandOff | None:  # type: ignore[override]  # the node has it
        """Give what the node's dispatcher offers."""
        return self._node.hand_off

    def stamp_us(self) -> int:
        """Give the database's time."""
        return self._world.now_us()


class InlineRunner(AsyncRunner):
    """hookware's runner, in a world without threads."""

    def __init__(self, process: "Process", node: Node) -> None:
        super().__init__(process.engines.own, node.env)
        self._process = process
        self._thread = ThreadRunner(process.engines.renewing, node.env)

    def run_blocking(self, fn: Callable[[Connection], T], *, write: bool = True, single: bool = False) -> T:
        """Run `fn` as the heartbeat's thread does, in one instant."""
        try:
            return self._thread.run_blocking(fn, write=write, single=single)
        finally:
            self._process.database.look()

    def dispose(self) -> None:
        """Leave the engines to the next process."""


class Process(Holder):
    """What one node has open: its engines, its outbox, its connections."""

    def __init__(self, database: "SQLiteDatabase", node: Node) -> None:
        super().__init__(database.path)
        self.database, self._node = database, node
        self.engines = _unused.pop() if _unused else Engines()
        self.engines.serve(self)
        world = database.world
        self.outbox = ClockedOutbox(self.engines.app, world, node)
        self.outbox.runner = self.runner = InlineRunner(self, node)
        self.outbox.store = self.store = SQLStore(
            self.runner, self.outbox.clock, env=node.env, tombstone_us=self.outbox.tombstone_us,
            queues=world.config.queues,
        )  # fmt: skip
        self.outbox.on_committed = node.hint

    def close(self) -> None:
        """Die."""
        self.cut_connections()
        self.outbox.sync_engine = GONE  # the next process has this one's engines, and must not be taken for it
        _unused.append(self.engines)

    async def before(self, connection: InlineConnection, what: str) -> None:
        world = self.database.world
        await asyncio.sleep(0)
        lot, faults = world.random.random(), world.faults
        if lot < faults.hang * _PER_STATEMENT:
            seconds = world.random.choice((0.2, 1.0, 5.0, 30.0))
            world.count("hung statements")
            world.disturb("" if connection.in_transaction else self._node.name, seconds, "hung statement")
            await asyncio.sleep(seconds)
        elif lot > 1 - faults.error_before * _PER_STATEMENT and what != "rollback":
            self._fail("before")

    async def after(self, connection: InlineConnection, what: str) -> None:
        world = self.database.world
        if what == "commit" and connection.take_changes():
            self.database.look(by_handler=connection.by_app)
        await asyncio.sleep(0)
        if what == "commit" and world.random.random() < world.faults.error_after:
            self._fail("after")

    def waits(self) -> Iterator[float]:
        world = self.database.world
        until = world.loop.time() + world.faults.busy_seconds
        while world.loop.time() < until:
            yield world.random.uniform(0.001, 0.1)

    def _fail(self, when: str) -> None:
        world = self.database.world
        world.count(f"statement errors {when} the effect")
        world.disturb(self._node.name, 0, f"store error {when} the effect")
        raise sqlite3.OperationalError("disk I/O error")


class SQLiteDatabase:
    """One file for all nodes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._directory = tempfile.TemporaryDirectory(prefix="hookware-simulation-")
        self.path = Path(self._directory.name) / "simulated.db"
        shutil.copyfile(template(), self.path)
        self._processes: dict[str, Process] = {}
        self._watch = Watch(world)
        self._looking = connect(self.path)
        self._seen: dict[int, Seen] = {}
        self._committed: set[int] = set()
        self._last_effect = 0

    def store_of(self, node: Node) -> Store:
        process = self._processes[node.name] = Process(self, node)
        return Wire(self.world, process.store)

    def outbox_of(self, node: Node) -> Outbox:
        """Give what a node has open."""
        return self._processes[node.name].outbox

    def hurry(self, node: Node, seconds: float) -> None:
        self._processes[node.name].runner.hurry(seconds)

    def look(self, *, by_handler: bool = False) -> None:
        """See what the transaction that has just been committed has changed."""
        if self.world.over:
            return
        for row in self._looking.execute("SELECT id, task, fence FROM sim_effect WHERE id > ?", (self._last_effect,)):
            self._last_effect = row[0]
            self.world.note("effect", task=row[1], fence=row[2])
        now = {row[0]: Seen(*row) for row in self._looking.execute(_SEEN)}
        before, self._seen = self._seen, now
        self._committed |= now.keys()
        for task_id in sorted(before.keys() | now.keys()):
            was, seen = before.get(task_id), now.get(task_id)
            if was != seen:
                self._watch.changed(was, seen, by_handler=by_handler)

    async def order(self, node: Node, promise: Promise, *, commits: bool) -> None:
        world, task = self.world, promise.task.id
        process = self._processes.get(node.name)
        if process is None:
            return  # it has just gone
        status = await order(process.outbox, node, promise, commits=commits, chance=world.random)
        if not commits:
            world.note("rolled_back", task=task)
        kept, asked = task in self._committed, "commit" if commits else "undo"
        world.note("answered", name=str(task), outcome=asked, status=status, kept=kept)

    async def serve(
        self, node: Node, app: ASGIApp, delivery: Delivery, scope: Scope, receive: Receive, send: Send
    ) -> None:
        unit = UnitOfWork(self._processes[node.name].outbox, delivery)
        await serve_delivery(app, unit, delivery, scope, receive, send)

    async def write_effect(self, delivery: Delivery, *, refused: bool = False) -> None:
        values = {"task": delivery.task.id, "fence": delivery.task.fence, "stands_on": NOTHING if refused else None}
        if self.world.random.random() < 0.5:
            await (await async_request_session().connection()).execute(_WRITE_EFFECT, values)
            return
        async with AsyncSession(self._processes[NODE.get()].engines.app) as session:
            await session.execute(_WRITE_EFFECT, values)
            TaskContext(delivery).complete_in(session)
            await session.commit()

    def left(self) -> int:
        lost = self._looking.execute("SELECT task FROM sim_order WHERE with_task").fetchall()
        for (task,) in lost:
            if task not in self._committed:
                self.world.note("answered", name=f"the order of task {task}", outcome="commit", status=200)
        return sum(row.state != State.DEAD for row in self._seen.values())

    def holds_up_others(self, node: str) -> bool:
        process = self._processes.get(node)
        return process is not None and process.holds_lock

    def lose(self, node: str) -> None:
        process = self._processes.pop(node, None)
        if process is not None:
            process.close()

    def close(self) -> None:
        for name in list(self._processes):
            self.lose(name)
        self._looking.close()
        self._directory.cleanup()
