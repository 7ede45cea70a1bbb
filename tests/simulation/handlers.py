"""The app of a simulated world: one ASGI app whose handlers do everything that handlers do."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio
from starlette.types import Receive, Scope, Send

from hookware.core.lifecycle import Complete
from hookware.core.retry import RetryOptions
from hookware.core.task import NewTask
from hookware.delivery import SCOPE_KEY, Delivery
from hookware.errors import PermanentTaskFailure, TaskLeaseExpiredError
from hookware.store.base import Settlement
from tests.simulation.loop import NODE

if TYPE_CHECKING:
    from tests.simulation.world import World

Handler = Callable[["Visit"], Awaitable[None]]

SECONDS = {"blocking": 120.0}  # the deadlines of kinds that need more than 30 s
RETRY = {"limited": RetryOptions(task_retry_limit=2, min_backoff_seconds=1, max_backoff_seconds=5)}
FEW_DOUBLINGS = RetryOptions(min_backoff_seconds=0.5, max_backoff_seconds=10)


class Visit:
    """One call of the app: the task, and how to answer."""

    def __init__(self, world: "World", scope: Scope, send: Send, spec: dict[str, float]) -> None:
        self.world = world
        self.delivery: Delivery = scope[SCOPE_KEY]
        self.task = self.delivery.task
        self.spec = spec
        self.status = 0
        self._send = send

    async def answer(self, status: int = 200) -> None:
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": []})
        await self._send({"type": "http.response.body", "body": b""})

    async def work(self, seconds: float | None = None) -> None:
        await anyio.lowlevel.checkpoint()
        await asyncio.sleep(self.spec["seconds"] if seconds is None else seconds)

    def first_times(self) -> bool:
        """Whether this is one of the task's first calls, which are to go wrong."""
        left = self.world.left.setdefault(self.task.id, int(self.spec["times"]))
        self.world.left[self.task.id] = left - 1
        return left > 0


async def fine(visit: Visit) -> None:
    await visit.work()
    await visit.answer(204)


async def flaky(visit: Visit) -> None:
    await visit.work()
    await visit.answer(500 if visit.first_times() else 200)


async def busy(visit: Visit) -> None:
    await visit.answer(503 if visit.first_times() else 200)


async def raising(visit: Visit) -> None:
    await visit.work()
    if visit.first_times():
        errors: list[BaseException] = [ValueError("odd"), ExceptionGroup("g", [KeyError("k")]), SystemExit(1)]
        raise visit.world.random.choice(errors)
    await visit.answer()


async def failing_late(visit: Visit) -> None:
    await visit.answer()
    await visit.work()
    if visit.first_times():
        raise RuntimeError("the commit after the response failed")


async def hanging(visit: Visit) -> None:
    if visit.first_times():
        await anyio.sleep_forever()
    await visit.answer()


async def stubborn(visit: Visit) -> None:
    if visit.first_times():
        with anyio.CancelScope(shield=True):
            await visit.work(60)
    await visit.answer()


async def blocking(visit: Visit) -> None:
    await visit.work(0.1)
    visit.world.block(NODE.get(), 35 + visit.spec["seconds"])
    await visit.work(0)
    await visit.answer()


async def silent(visit: Visit) -> None:
    if not visit.first_times():
        await visit.answer()


async def permanent(visit: Visit) -> None:
    await visit.work()
    raise PermanentTaskFailure("no use")


async def conflicting(visit: Visit) -> None:
    await visit.work(0.01)
    if visit.first_times():
        visit.delivery.conflict = "deadlock detected"
        raise RuntimeError("deadlock detected")
    await visit.answer()


async def transactional(visit: Visit) -> None:
    """Commit effect and completion together, as the middleware does; sometimes fail after that."""
    await visit.work()
    await visit.answer()
    visit.delivery.completing = True
    (accepted,) = await visit.world.store.settle_now([Settlement(visit.task.lease, Complete())], by_handler=True)
    if not accepted:
        visit.delivery.lease_lost = True
        raise TaskLeaseExpiredError("stale")
    visit.delivery.completed = True
    if visit.spec["times"] > 1:
        raise RuntimeError("after the commit")


async def poison(visit: Visit) -> None:
    await visit.work(0.1)
    visit.world.kill(NODE.get(), "poison")
    await visit.work(0)


async def limited(visit: Visit) -> None:
    await visit.answer(500)


HANDLERS: dict[str, tuple[int, Handler]] = {
    "fine": (10, fine),
    "flaky": (3, flaky),
    "busy": (2, busy),
    "raising": (3, raising),
    "failing_late": (3, failing_late),
    "hanging": (1, hanging),
    "stubborn": (1, stubborn),
    "blocking": (1, blocking),
    "silent": (1, silent),
    "permanent": (1, permanent),
    "conflicting": (2, conflicting),
    "transactional": (4, transactional),
    "poison": (1, poison),
    "limited": (1, limited),
}


def draw_task(world: "World", task_id: int) -> NewTask:
    """Draw a task: what its handler will do, and when it is due."""
    random = world.random
    kind = random.choices(list(HANDLERS), [weight for weight, _ in HANDLERS.values()])[0]
    spec = {"seconds": min(random.expovariate(1 / 4), 20), "times": random.randint(1, 3)}
    return NewTask(
        id=task_id,
        queue_name=random.choice(["default", "other"]),
        name=None,
        method="POST",
        url=f"/{kind}",
        headers=(),
        body=json.dumps(spec).encode(),
        countdown_us=random.choice([0, 0, 0, 5_000_000, 60_000_000]),
        retry=RETRY.get(kind, FEW_DOUBLINGS),
        deadline_us=int(SECONDS.get(kind, 30.0) * 1e6),
    )


class App:
    """Calls the handler that the path names, and writes down when it began and how it ended."""

    def __init__(self, world: "World") -> None:
        self._world = world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        visit = Visit(self._world, scope, send, json.loads(message["body"]))
        self._note("start", visit, None)
        outcome = "raised"
        try:
            _, handler = HANDLERS[scope["path"][1:]]
            await handler(visit)
            outcome = "returned"
        finally:
            self._note("end", visit, self._outcome(visit, outcome))

    def _note(self, event: str, visit: Visit, outcome: str | None) -> None:
        task = visit.task
        self._world.note(event, task=task.id, attempt=task.attempt_count, fence=task.fence, outcome=outcome)

    @staticmethod
    def _outcome(visit: Visit, outcome: str) -> str:
        if visit.delivery.conflict is not None:
            return "conflict"
        return "ok" if outcome == "returned" and 200 <= visit.status < 300 else outcome
