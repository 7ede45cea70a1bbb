"""`hookware bench`: how many tasks a second your database takes in, and gives out."""

from dataclasses import dataclass
from typing import Final

import click

from hookware import Hookware, Queue, TaskRouter
from hookware.cli import given
from hookware.cli.desk import Desk, run
from hookware.cli.failure import Failure
from hookware.headless import Headless
from hookware.signals import Signals
from hookware.store.sql.scratch import scratch
from hookware.taskqueue import Task
from hookware.unit_of_work import UnitOfWork, current_unit

_URL: Final = "/hookware/bench"
_AT_ONCE: Final = 100
_UNITS: Final = {
    "enqueue": "tasks per second, one after another, a commit for each",
    "enqueue-100": "tasks per second, 100 in each commit",
    "dispatch": "tasks per second, each claimed, delivered to a handler that does nothing, and settled",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """So many tasks took so many seconds."""

    what: str
    task_count: int
    seconds: float

    @property
    def per_second(self) -> float:
        """How many there were in a second."""
        return self.task_count / max(self.seconds, 1e-9)


@click.command(epilog="Example: hookware bench --db postgresql://localhost/app -n 5000")
@click.option(
    "-n", "--tasks", "count", type=click.IntRange(100, 1_000_000), default=2000, show_default=True, help="How many."
)
@click.option("--concurrency", type=click.IntRange(1, 1000), default=10, show_default=True, help="Tasks at once.")
@given.reads
def bench(count: int, concurrency: int) -> None:
    """Measure enqueue and dispatch on your database.

    All is done in this one process, in a new file beside a SQLite database, or in a new schema of a PostgreSQL, which
    is removed at the end: your tables and tasks are not touched, but what else runs there is slower meanwhile.
    """

    async def work(desk: Desk) -> None:
        desk.printer.say(f"{count:,} tasks each, {concurrency} at once, on {desk.outbox.address}")
        async with scratch(desk.outbox) as url:
            engine = url.render_as_string(hide_password=False)
            hookware = Hookware(engine=engine, concurrency=concurrency, router=_router(), foreground_first=False)
            for measured in await _measure(hookware, count):
                _print(desk, measured)

    run(work)


def _router() -> TaskRouter:
    router = TaskRouter()

    @router.task_handler(_URL)
    async def nothing() -> None:
        """Do nothing, as fast as it can."""

    return router


async def _measure(hookware: Hookware, count: int) -> list[Measured]:
    outbox, queue = hookware._outbox, Queue()
    clock = outbox.env.monotonic
    await outbox.prepare()
    before = current_unit.set(UnitOfWork(outbox))
    try:
        begun_at = clock()
        for _ in range(count):
            await queue.add_async(Task(url=_URL), transactional=False)
        single = Measured(what="enqueue", task_count=count, seconds=clock() - begun_at)
        begun_at, some = clock(), count // _AT_ONCE
        for _ in range(some):
            await queue.add_async([Task(url=_URL) for _ in range(_AT_ONCE)], transactional=False)
        many = Measured(what="enqueue-100", task_count=some * _AT_ONCE, seconds=clock() - begun_at)
    finally:
        current_unit.reset(before)
    return [single, many, await _dispatch(hookware, single.task_count + many.task_count)]


async def _dispatch(hookware: Hookware, count: int) -> Measured:
    clock = hookware._outbox.env.monotonic
    ended_at: list[float] = []
    hookware.events.subscribe(lambda _event: ended_at.append(clock()))
    begun_at = clock()
    refusal = await Headless(hookware, Signals(is_awaited=True), drain=True).run()
    if refusal is not None:
        raise Failure(f"the tasks could not be dispatched: {refusal}")
    return Measured(what="dispatch", task_count=count, seconds=max(ended_at, default=clock()) - begun_at)


def _print(desk: Desk, measured: Measured) -> None:
    unit = _UNITS[measured.what]
    data = {"what": measured.what, "tasks": measured.task_count, "seconds": round(measured.seconds, 4)}
    text = f"{measured.what:<12} {measured.per_second:>10,.0f}  {unit}"
    desk.printer.data({**data, "tasks_per_second": round(measured.per_second, 1), "unit": unit}, text)
