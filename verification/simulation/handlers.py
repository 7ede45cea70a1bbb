"""The app of a simulated world: one ASGI app whose handlers do everything that handlers do."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import anyio
from starlette.types import Receive, Scope, Send

from hookware.core.retry import RetryOptions
from hookware.core.task import NewTask
from hookware.delivery import SCOPE_KEY, Delivery
from hookware.errors import PermanentTaskFailure
from verification.simulation.loop import NODE
from verification.simulation.world import Promise, World

INSIDE = frozenset({"transactional", "overtaken", "unkept"})
"""The handlers that write in hookware's transaction."""

_SECONDS = {"blocking": 120.0, "lengthy": 120.0, "overtaken": 120.0}  # the deadlines of kinds that need more than 30 s
_LIMITED = RetryOptions(task_retry_limit=2, min_backoff_seconds=1, max_backoff_seconds=5, max_doublings=16)
_RETRY = (
    RetryOptions(min_backoff_seconds=0.5, max_backoff_seconds=10, max_doublings=16),
    RetryOptions(min_backoff_seconds=2, max_backoff_seconds=60, max_doublings=1),
    RetryOptions(min_backoff_seconds=0.1, max_backoff_seconds=30, max_doublings=3),
)
_STATUSES = (100, 301, 400, 404, 409, 422, 429, 500, 502)


class Visit:
    """One call of the app: the task, and how to answer."""

    def __init__(self, world: World, scope: Scope, send: Send, spec: dict[str, float]) -> None:
        self.world = world
        self.delivery: Delivery = scope[SCOPE_KEY]
        self.task = self.delivery.task
        self.spec = spec
        self.status = 0
        self.cancels_itself = False
        self._send = send

    async def answer(self, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        """Send a whole response."""
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": b""})

    async def work(self, seconds: float | None = None) -> None:
        """Let time pass."""
        await asyncio.sleep(self.spec["seconds"] if seconds is None else seconds)

    def goes_wrong(self) -> bool:
        """Whether this is one of the task's first calls, which are to go wrong."""
        left = self.world.wrong_left.setdefault(self.task.id, int(self.spec["times"]))
        self.world.wrong_left[self.task.id] = left - 1
        return left > 0


async def fine(visit: Visit) -> None:
    """Succeed."""
    await visit.work()
    await visit.answer(204)


async def lengthy(visit: Visit) -> None:
    """Take longer than a lease, which must be renewed meanwhile."""
    await visit.work(30 + visit.spec["seconds"])
    await visit.answer()


async def refusing(visit: Visit) -> None:
    """Answer something else than 2xx at first."""
    await visit.work()
    status = visit.world.random.choice(_STATUSES) if visit.goes_wrong() else 200
    await visit.answer(status, (b"retry-after", b"3"))


async def busy(visit: Visit) -> None:
    """Answer 503 at first, which slows the queue."""
    await visit.answer(503 if visit.goes_wrong() else 200)


async def raising(visit: Visit) -> None:
    """Raise at first, whatever can be raised."""
    await visit.work()
    if visit.goes_wrong():
        errors: list[BaseException] = [
            ValueError("odd"), ExceptionGroup("g", [KeyError("k")]), SystemExit(1), asyncio.CancelledError(),
        ]  # fmt: skip
        error = visit.world.random.choice(errors)
        visit.cancels_itself = isinstance(error, asyncio.CancelledError)
        raise error
    await visit.answer()


async def failing_late(visit: Visit) -> None:
    """Answer, and raise after that at first."""
    await visit.answer()
    await visit.work()
    if visit.goes_wrong():
        raise RuntimeError("the commit after the response failed")


async def hanging(visit: Visit) -> None:
    """Never return at first."""
    if visit.goes_wrong():
        await anyio.sleep_forever()
    await visit.answer()


async def stubborn(visit: Visit) -> None:
    """Take twice its deadline at first, shielded from cancellation."""
    if visit.goes_wrong():
        with anyio.CancelScope(shield=True):
            await visit.work(60)
    await visit.answer()


async def swallowing(visit: Visit) -> None:
    """Swallow its cancellation at first, and answer as if nothing had been."""
    if visit.goes_wrong():
        try:
            await visit.work(40)
        except asyncio.CancelledError:
            await visit.work(0)
    await visit.answer()


async def blocking(visit: Visit) -> None:
    """Block the event loop for longer than a lease."""
    await visit.work(0.1)
    visit.world.block(NODE.get(), 35 + visit.spec["seconds"])
    await visit.work(0)
    await visit.answer()


async def silent(visit: Visit) -> None:
    """Return without an answer at first."""
    if not visit.goes_wrong():
        await visit.answer()


async def permanent(visit: Visit) -> None:
    """Give up at once, in one of two ways."""
    await visit.work()
    if visit.spec["times"] > 1:
        raise PermanentTaskFailure("no use")
    await visit.answer(400, (b"x-hookware-no-retry", b"1"))


async def conflicting(visit: Visit) -> None:
    """Meet another transaction at first."""
    await visit.work(0.01)
    if visit.goes_wrong():
        visit.delivery.conflict = "deadlock detected"
        raise RuntimeError("deadlock detected")
    await visit.answer()


async def transactional(visit: Visit) -> None:
    """Write in hookware's transaction; sometimes fail after that."""
    await visit.work()
    await visit.answer()
    await visit.world.database.write_effect(visit.delivery)
    if visit.spec["times"] > 1 and visit.goes_wrong():
        raise RuntimeError("after the effect")


async def overtaken(visit: Visit) -> None:
    """Write in hookware's transaction when the lease has ended, and nobody has noticed: a zombie."""
    if visit.goes_wrong():
        visit.world.starve(NODE.get(), 90)
        await visit.work(65 + visit.spec["seconds"])
    await visit.answer()
    await visit.world.database.write_effect(visit.delivery)


async def unkept(visit: Visit) -> None:
    """Write in hookware's transaction what the database refuses at the commit, at first."""
    await visit.answer()
    await visit.world.database.write_effect(visit.delivery, refused=visit.goes_wrong())


async def poison(visit: Visit) -> None:
    """Take the process down."""
    await visit.work(0.1)
    visit.world.kill(NODE.get(), "poison")
    await visit.work(0)


async def limited(visit: Visit) -> None:
    """Fail until the retry limit is reached."""
    await visit.answer(500)


HANDLERS: dict[str, tuple[float, Callable[[Visit], Awaitable[None]]]] = {
    "fine": (10, fine),
    "lengthy": (1, lengthy),
    "refusing": (4, refusing),
    "busy": (2, busy),
    "raising": (3, raising),
    "failing_late": (3, failing_late),
    "hanging": (1, hanging),
    "stubborn": (1, stubborn),
    "swallowing": (1, swallowing),
    "blocking": (0.7, blocking),
    "silent": (1, silent),
    "permanent": (1, permanent),
    "conflicting": (2, conflicting),
    "transactional": (5, transactional),
    "overtaken": (0.7, overtaken),
    "unkept": (1, unkept),
    "poison": (0.7, poison),
    "limited": (1, limited),
}


def draw_promise(world: World, task_id: int) -> Promise:
    """Draw a task: what its handler will do, and when it is due."""
    random, kinds = world.random, world.faults.kinds
    weights = [kinds.get(kind, weight) for kind, (weight, _) in HANDLERS.items()]
    kind = random.choices(list(HANDLERS), weights)[0]
    spec = {"seconds": min(random.expovariate(1 / 4), 20), "times": random.randint(1, 3)}
    name = f"name-{random.randrange(3)}" if random.random() < 0.1 else None
    return promise(
        task_id, kind, spec, queue_name=random.choice(("default", "other")), name=name,
        countdown_us=random.choice((0, 0, 0, 5_000_000, 60_000_000, 900_000_000)), retry=random.choice(_RETRY),
    )  # fmt: skip


def promise(
    task_id: int,
    kind: str,
    spec: dict[str, float],
    *,
    queue_name: str = "default",
    name: str | None = None,
    countdown_us: int = 0,
    retry: RetryOptions = _RETRY[0],
    within: float = 0.0,
) -> Promise:
    """Give a task whose handler does what `kind` says."""
    task = NewTask(
        id=task_id,
        queue_name=queue_name,
        name=name,
        method="POST",
        url=f"/{kind}",
        headers=(("x-of", str(task_id)),),
        body=json.dumps(spec).encode(),
        countdown_us=countdown_us,
        retry=_LIMITED if kind == "limited" else retry,
        deadline_us=int(_SECONDS.get(kind, 30.0) * 1e6),
    )
    return Promise(task=task, kind=kind, inside=kind in INSIDE, within=within)


class Call:
    """One call of the app: calls the handler that the path names, and writes down when it began and how it ended.

    The end is that of the whole call, with what hookware does around the app.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._visit: Visit | None = None

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be the app."""
        message = await receive()
        self._visit = visit = Visit(self._world, scope, send, json.loads(message["body"]))
        self._note_start(visit, scope, message["body"])
        _, handler = HANDLERS[scope["path"][1:]]
        await handler(visit)

    async def watch(self, served: Awaitable[None]) -> None:
        """Wait for the whole call, and write down its end."""
        outcome = "raised"
        try:
            await served
            outcome = "returned"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            if self._visit is not None:
                self._note_end(self._visit, outcome)

    def _note_end(self, visit: Visit, outcome: str) -> None:
        task = visit.task
        if visit.delivery.conflict is not None:
            outcome = "conflict"
        elif outcome == "returned" and 200 <= visit.status < 300:
            outcome = "ok"
        elif outcome == "cancelled" and visit.cancels_itself:
            outcome = "raised"
        self._world.note("end", task=task.id, attempt=task.attempt_count, fence=task.fence, outcome=outcome)

    def _note_start(self, visit: Visit, scope: Scope, body: bytes) -> None:
        task, sent = visit.task, self._world.promises[visit.task.id].task
        arrived = (scope["method"], scope["path"], body, dict(scope["headers"]).get(b"x-of"))
        mangled = arrived != (sent.method, sent.url, sent.body, str(sent.id).encode())
        self._world.note("start", task=task.id, attempt=task.attempt_count, fence=task.fence, mangled=mangled)
