"""A Hookware that runs nothing, on a database whose clock the test moves; called as from a thread, or awaited."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from time import time_ns
from typing import Any, Protocol, cast

from anyio import to_thread

from hookware import Hookware, Queue, Task, TaskRetryOptions
from hookware.env import Env
from hookware.store.base import Claim, TaskInfo
from hookware.store.sql.store import SQLStore
from tests.databases import Database

SECOND_US = 1_000_000
TOMBSTONE_SECONDS = 100.0

QUEUES = (
    Queue("push", retry_parameters=TaskRetryOptions(task_retry_limit=7)),
    Queue("other"),
    Queue("pull", mode="pull"),
    Queue("twice", mode="pull", retry_parameters=TaskRetryOptions(task_retry_limit=2)),
)


class SteppedEnv(Env):
    """Time stands still until it is moved; for the database, too."""

    def __init__(self) -> None:
        super().__init__()
        self.time_us = time_ns() // 1000

    def now_us(self) -> int:
        return getattr(self, "time_us", 0)

    def clock(self, _connection: object) -> int:
        return self.time_us


class _Bound(Protocol):
    __self__: object
    __name__: str


class Site:
    """One Hookware and its time."""

    def __init__(self, hookware: Hookware, env: SteppedEnv, *, awaits: bool) -> None:
        self.hookware, self.env, self._awaits = hookware, env, awaits
        self.changes = 0
        self.outbox = hookware._outbox

        def changed() -> None:
            self.changes += 1

        self.outbox.on_committed = changed

    @property
    def store(self) -> SQLStore:
        return self.outbox.store

    @property
    def now_us(self) -> int:
        return self.env.time_us

    def wait(self, seconds: float = 0, *, us: int = 0) -> None:
        """Let time pass."""
        self.env.time_us += int(seconds * SECOND_US) + us

    async def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of a queue in its blocking form, in a thread, or in its asynchronous one."""
        bound = cast("_Bound", method)
        if not self._awaits:
            return await to_thread.run_sync(partial(method, *args, **kwargs))
        awaited: Awaitable[Any] = getattr(bound.__self__, f"{bound.__name__}_async")(*args, **kwargs)
        return await awaited

    async def is_paused(self, queue: Queue) -> bool:
        if self._awaits:
            return await queue.is_paused_async()
        return await to_thread.run_sync(lambda: queue.is_paused)

    async def add(self, queue_name: str, *tasks: Task) -> list[Task]:
        added: list[Task] = await self.call(Queue(queue_name).add, list(tasks))
        return added

    async def lease(self, seconds: float = 10, most: int = 1000, queue_name: str = "pull") -> list[Task]:
        leased: list[Task] = await self.call(Queue(queue_name).lease_tasks, seconds, most)
        return leased

    async def claim(self, limit: int = 10) -> list[int]:
        """Claim as a dispatcher does; the ids."""
        claimed = await self.store.claim(Claim(owner="me", limit=limit, lease_us=30 * SECOND_US))
        return [task.id for task in claimed.tasks]

    async def stored(self) -> list[TaskInfo]:
        return await self.store.list_tasks(limit=10_000)


def pull(payload: str = "x", name: str | None = None, **options: Any) -> Task:
    """Make a pull task."""
    return Task(payload, name=name, method="PULL", **options)


def payloads(tasks: Iterable[Task]) -> list[str]:
    """Give the payloads of pull tasks."""
    return [cast("bytes", task.payload).decode() for task in tasks]


@asynccontextmanager
async def site_on(database: Database, queues: Iterable[Queue] = QUEUES, **options: Any) -> AsyncIterator[Site]:
    """Hold a site: with an asynchronous driver it is awaited."""
    engine = database.user_engine()
    env = SteppedEnv()
    hookware = Hookware(
        engine=engine, env=env, queues=queues, tombstone_seconds=TOMBSTONE_SECONDS, dispatch=False, **options
    )
    outbox = hookware._outbox
    outbox.own_clock = outbox.store._clock = env.clock
    outbox.store._stamp = (lambda: None) if database.is_sqlite else env.now_us
    await outbox.prepare()
    outbox.running = True  # as while its lifespan runs
    yield Site(hookware, env, awaits=bool(database.driver))
    await outbox.close()
    disposed = engine.dispose()
    if disposed is not None:
        await disposed
