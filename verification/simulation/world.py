"""One simulated world: its time, its history, and what befalls its nodes."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from hookware.config import Config
from hookware.core.task import NewTask
from hookware.delivery import Delivery
from verification.history import Line
from verification.simulation.faults import NO_FAULTS, Faults
from verification.simulation.loop import NODE, WORLD, SimLoop, context_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from hookware.store.base import Store
    from verification.simulation.node import Node

EPOCH_US = 1_700_000_000_000_000
HEARTBEAT = ".heartbeat"
_RESTART_SECONDS = ((0.5, 20.0), (0.5, 20.0), (0.5, 20.0), (60.0, 300.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A task that is on its way into the database, and what the checker has to know about it."""

    task: NewTask
    kind: str
    inside: bool
    within: float = 0.0


class Database(Protocol):
    """What keeps the tasks of a world."""

    def store_of(self, node: "Node") -> "Store":
        """Give a node its way to the store."""
        ...

    def hurry(self, node: "Node", seconds: float) -> None:
        """Give the calls of a node at most so many seconds."""
        ...

    async def order(self, node: "Node", promise: Promise, *, commits: bool) -> None:
        """Be a request to a node: put a task into a transaction, which commits or rolls back."""
        ...

    async def serve(
        self, node: "Node", app: "ASGIApp", delivery: Delivery, scope: "Scope", receive: "Receive", send: "Send"
    ) -> None:
        """Pass a delivery through what is around the app."""
        ...

    async def write_effect(self, delivery: Delivery, *, refused: bool = False) -> None:
        """Be a handler that writes in hookware's transaction; `refused`: what the commit will not take."""
        ...

    def left(self) -> int:
        """Count the rows that are neither dead nor gone."""
        ...

    def holds_up_others(self, node: str) -> bool:
        """Whether a node holds a lock that the others need, just now."""
        ...

    def lose(self, node: str) -> None:
        """Close what a process had open: it is gone."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class World:
    """Everything there is in one seed.

    Attributes:
        history: what happened in it.
        counts: what was done to it, apart from kills.
        promises: what was ordered, by task.
        lost_wakeup: how likely it is that a dispatcher is not told of a commit.
        wrong_left: how many more times a task's handler is to go wrong.
        over: nothing more is written down, and nothing more goes wrong.
    """

    def __init__(
        self, *, random: Random, faults: Faults, config: Config, make_node: "Callable[[World, str], Node]"
    ) -> None:
        self.random = random
        self.loop = SimLoop(random.getrandbits(64))
        self.faults, self.config = faults, config
        self.over = False
        self.history: list[Line] = []
        self.counts: Counter[str] = Counter()
        self.promises: dict[int, Promise] = {}
        self.wrong_left: dict[int, int] = {}
        self.nodes: dict[str, Node] = {}
        self.database: Database
        self._make_node = make_node
        self._generation = 0
        self.loop.on_spin = lambda node: self.note("spun", node=node)
        self.lost_wakeup = faults.lost_wakeup
        self._trace = hashlib.blake2b(digest_size=12)
        self._dead: set[str] = set()
        self._disturbed_until: dict[str, float] = {}
        self._clock_us = 0

    # What is known.

    def now_us(self) -> int:
        """The database's time."""
        return EPOCH_US + int(self.loop.time() * 1e6) + self._clock_us

    def seconds(self, us: int) -> float:
        """Give a time of the database on the axis of the history."""
        return (us - EPOCH_US) / 1e6

    def deadline(self, task: int) -> float:
        """Give how long a task's handler may take."""
        return self.promises[task].task.deadline_us / 1e6

    @property
    def trace(self) -> str:
        """A hash of all that happened."""
        traced = self._trace.copy()
        traced.update(str(self.loop.step_count).encode())
        return traced.hexdigest()

    def note(self, event: str, *, node: str | None = None, **said: Any) -> None:
        """Write a line into the history."""
        if self.over:
            return
        where = NODE.get() if node is None else node
        line = Line(ev=event, t=round(self.loop.time(), 6), node=where.removesuffix(HEARTBEAT), **said)
        self.history.append(line)
        self._trace.update(line.as_json().encode())

    def note_committed(self, task: int, eta_us: int) -> None:
        """Write down that a task is in the database."""
        promise = self.promises[task]
        new, retry = promise.task, promise.task.retry
        backoff = None
        if retry is not None:
            backoff = [retry.min_backoff_seconds, retry.max_backoff_seconds, retry.max_doublings]
        self.note(
            "committed", task=task, eta=self.seconds(eta_us), url=new.url, queue=new.queue_name, name=new.name or "",
            inside=promise.inside, within=promise.within, backoff=backoff,
            retry_limit=None if retry is None else retry.task_retry_limit,
        )  # fmt: skip

    def count(self, fault: str) -> None:
        """Count a fault."""
        if not self.over:
            self.counts[fault] += 1

    def disturb(self, node: str, seconds: float, why: str) -> None:
        """Note that something keeps a node from its work; an empty node is all of them."""
        until = round(self.loop.time() + seconds, 6)
        if until > self._disturbed_until.get(node, -1.0):
            self._disturbed_until[node] = until
            self.note("disturbed", node=node, until=until, why=why)

    def is_dead(self, node: str) -> bool:
        """Whether the node has been killed."""
        return node.removesuffix(HEARTBEAT) in self._dead

    def sees_dead(self, here: str, owner: str) -> bool:
        """Whether `here` can know that `owner` is dead: only a process of the same host."""
        return owner in self._dead and owner.partition(".")[0] == here.partition(".")[0]

    @property
    def calm_at(self) -> float:
        """When the last of the disturbances that are known now is over."""
        return max(self._disturbed_until.values(), default=0.0)

    def living(self) -> "list[Node]":
        """Give the latest process of each host, as far as it lives."""
        return [node for node in self.nodes.values() if node.name not in self._dead]

    # What befalls the nodes.

    def kill(self, node: str, why: str) -> None:
        """Kill a process, and start the next one on its host a little later."""
        name = node.removesuffix(HEARTBEAT)
        if self.over or name in self._dead or name == WORLD:
            return
        self.note("killed", node=name, why=why)
        self._dead.add(name)
        self.loop.freeze(name, name + HEARTBEAT)
        self.database.lose(name)
        self.loop.after(self.random.uniform(*self.random.choice(_RESTART_SECONDS)), self._begin_again, name)

    def pause(self, node: str, seconds: float, why: str = "pause") -> None:
        """Freeze a whole process for a while."""
        if node not in self._dead and not self.loop.is_frozen(node):
            self.count(why)
            self.disturb("" if self.database.holds_up_others(node) else node, seconds, why)
            self.loop.freeze(node, node + HEARTBEAT)
            self.loop.after(seconds, self._thaw, node, node + HEARTBEAT)

    def block(self, node: str, seconds: float) -> None:
        """Freeze only the event loop of a process, as a handler does that does not await."""
        if node not in self._dead and not self.loop.is_frozen(node):
            self.count("blocked loop")
            self.note("blocked", node=node, until=round(self.loop.time() + seconds, 6))
            if self.database.holds_up_others(node):
                self.disturb("", seconds, "blocked loop")
            self.loop.freeze(node)
            self.loop.after(seconds, self._thaw, node)

    def starve(self, node: str, seconds: float) -> None:
        """Freeze only the thread of a process that renews leases."""
        thread = node + HEARTBEAT
        if node not in self._dead and not self.loop.is_frozen(thread):
            self.count("starved heartbeat")
            self.disturb(node, seconds, "starved heartbeat")
            self.loop.freeze(thread)
            self.loop.after(seconds, self._thaw, thread)

    def restart(self, host: str) -> None:
        """Shut a process down in good order, and start the next one."""
        node = self.nodes[host]
        if node.name not in self._dead and not self.loop.is_frozen(node.name):
            self.count("restart")
            node.stop()
            self.begin(host)

    def set_node_clock(self, host: str, seconds: float) -> None:
        """Set the clock of a node forward or back."""
        self.count("node clock set")
        self.nodes[host].env.step(seconds)

    def set_database_clock(self, seconds: float) -> None:
        """Set the clock of the database forward or back."""
        self.count("database clock set")
        self._clock_us += int(seconds * 1e6)
        self.note("clock", node="", by=int(seconds * 1e6) / 1e6)

    def begin(self, host: str) -> None:
        """Start a process on a host."""
        self._generation += 1
        self.nodes[host] = self._make_node(self, f"{host}.{self._generation}")

    def pass_failpoint(self, node: str, name: str) -> None:
        """Perhaps kill the node here, or raise."""
        faults = self.faults
        if self.over or not (faults.failpoint_kill or faults.failpoint_error):
            return
        lot = self.random.random()
        if lot < faults.failpoint_kill:
            self.kill(node, name)
        elif lot < faults.failpoint_kill + faults.failpoint_error and not name.startswith("dispatch.shutdown"):
            self.count("failpoint error")
            self.disturb(node, 0, "failpoint error")
            raise RuntimeError(f"failpoint {name}")

    def _thaw(self, *nodes: str) -> None:
        if not self.is_dead(nodes[0]):
            self.loop.thaw(*nodes)

    def _begin_again(self, dead: str) -> None:
        host = dead.partition(".")[0]
        if not self.over and self.nodes[host].name == dead:
            self.loop.call_soon(self.begin, host, context=context_of(WORLD))

    def bury(self) -> None:
        """Let everything that still waits end, so that nothing of this world is left in the next."""
        self.over = True
        self.faults = NO_FAULTS
        self.loop.thaw(*self.loop.frozen)
