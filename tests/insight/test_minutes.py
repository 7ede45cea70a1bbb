"""What ends is counted by minute: by several processes together, through failures, and at no cost else."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import anyio
import anyio.lowlevel
import pytest

from hookware import Queue, taskqueue
from hookware.core.lifecycle import Complete, Decision, Die, Release, Retry
from hookware.core.statistics import FIELDS, MINUTE_US, Sums
from hookware.env import Env
from hookware.events import AttemptSettled, Events
from hookware.health import Health
from hookware.minutes import Minutes
from hookware.store.sql import minutes, statements
from hookware.store.sql.minutes import ALL_QUEUES, KEPT_US, Gathered
from tests.databases import EVERY_ASYNC_DRIVER, EVERY_DATABASE_ON_A_LOOP
from tests.insight.stored import World
from tests.samples import leased_task
from tests.stage import AT_ONCE, Stage


def settled(decision: Decision, *, seconds: float = 0.0, waited: float = 0.0) -> AttemptSettled:
    claimed_us = MINUTE_US
    task = replace(leased_task(), queue_name="mail", eta_us=claimed_us - 2_000_000, claimed_us=claimed_us)
    return AttemptSettled(task, decision, True, seconds, waited_seconds=waited)


class Paper:
    """What is written is kept here; `fails` says whether it can be."""

    def __init__(self) -> None:
        self.fails = False
        self.written: list[Gathered] = []
        self.events = Events()
        self.minutes = Minutes(self._write, Env(), self.events, Health(Env()))

    async def _write(self, gathered: Gathered) -> None:
        if self.fails:
            raise OSError("the database is away")
        self.written.append(gathered)


async def test_what_ends_is_counted_in_the_minute_of_the_databases_clock() -> None:
    paper = Paper()
    paper.events.emit(settled(Complete(), seconds=1.0, waited=0.5))
    paper.events.emit(settled(Complete(), seconds=58.0, waited=4.0))  # ends in the next minute
    await paper.minutes.close()
    ((gathered),) = paper.written
    one, other = gathered["mail", MINUTE_US], gathered["mail", 2 * MINUTE_US]
    assert dict(zip(FIELDS, one.numbers, strict=True))["run_us"] == 1_000_000
    assert dict(zip(FIELDS, one.numbers, strict=True))["wait_us"] == 2_500_000
    assert dict(zip(FIELDS, other.numbers, strict=True))["run_most_us"] == 58_000_000
    assert gathered[ALL_QUEUES, MINUTE_US].numbers == one.numbers


@pytest.mark.parametrize(
    ("decision", "counts"),
    [
        (Complete(), (1, 0, 0, 0, 0)),
        (Retry(1, 500, "no"), (0, 1, 0, 0, 0)),
        (Die("retries", 500, "no"), (0, 0, 1, 0, 0)),
        (Release(), (0, 0, 0, 1, 0)),
        (Retry(1, None, "no", crashed=True), (0, 1, 0, 0, 1)),
        (Die("crashes", None, "no", crashed=True), (0, 0, 1, 0, 1)),
    ],
)
async def test_each_end_has_its_count_and_only_what_ran_has_times(decision: Decision, counts: tuple[int, ...]) -> None:
    paper = Paper()
    paper.events.emit(settled(decision, seconds=0.5))
    paper.events.emit(AttemptSettled(settled(decision).task, decision, False, 0.5))  # refused: another's affair
    await paper.minutes.close()
    numbers = paper.written[0]["mail", MINUTE_US].numbers
    assert tuple(numbers[:5]) == counts
    ran = not isinstance(decision, Release) and not getattr(decision, "crashed", False)
    assert sum(numbers[7:21]) == int(ran)


async def test_a_failed_write_keeps_the_numbers_and_what_comes_meanwhile() -> None:
    paper = Paper()
    paper.fails = True
    paper.events.emit(settled(Complete()))
    await paper.minutes.close()
    paper.minutes.note(settled(Complete()))  # closed, it hears of no event any more
    await paper.minutes.close()
    paper.fails = False
    await paper.minutes.close()
    assert paper.written[0]["mail", MINUTE_US].numbers[0] == 2
    await paper.minutes.close()
    assert len(paper.written) == 1, "what is written is not written again"


@EVERY_DATABASE_ON_A_LOOP
async def test_several_processes_add_up(world: World) -> None:
    def sums(run_us: int) -> Sums:
        one = Sums()
        one.ended(0, run_us, 7)
        return one

    minute_us = world.now_us - world.now_us % MINUTE_US
    for run_us in (5_000, 9_000, 2_000):
        gathered = {("mail", minute_us): sums(run_us), (ALL_QUEUES, minute_us): sums(run_us)}
        world.outbox.runner.run_blocking(partial(minutes.add, clock=world.outbox.own_clock, gathered=gathered))
    (now,) = await world.insight.minutes(queue_name="mail", minute_count=1)
    if not now.completed_count:  # the minute has just passed
        now = (await world.insight.minutes(queue_name="mail", minute_count=2))[0]
    assert (now.completed_count, now.run.sum_us, now.run.most_us, now.wait.sum_us) == (3, 16_000, 9_000, 21)
    assert now.run.buckets[:4] == (0, 1, 2, 0)
    overview = await world.insight.overview()
    assert overview.last_minutes.completed_count == 3
    assert {queue.name: queue.last_minutes.completed_count for queue in overview.queues} == {"mail": 3}


@EVERY_DATABASE_ON_A_LOOP
async def test_a_series_has_every_minute_and_puts_steps_together(world: World) -> None:
    minute_us = world.now_us - world.now_us % MINUTE_US
    for back in range(7):
        one = Sums()
        one.counted(0)
        gathered = {("mail", minute_us - back * MINUTE_US): one}
        world.outbox.runner.run_blocking(partial(minutes.add, clock=world.outbox.own_clock, gathered=gathered))
    series = await world.insight.minutes(queue_name="mail", minute_count=60)
    assert len(series) == 60
    assert [each.begin_us - series[0].begin_us for each in series] == [n * MINUTE_US for n in range(60)]
    assert sum(each.completed_count for each in series) == 7
    steps = await world.insight.minutes(queue_name="mail", minute_count=60, step=20)
    assert len(steps) == 3
    assert sum(each.completed_count for each in steps) == 7
    assert sum(each.completed_count for each in await world.insight.minutes(queue_name="other")) == 0
    for wrong in (0, 10_081):
        with pytest.raises(ValueError, match="minute_count"):
            await world.insight.minutes(minute_count=wrong)


@EVERY_DATABASE_ON_A_LOOP
async def test_minutes_are_kept_for_a_week(world: World) -> None:
    run: Callable[..., object] = world.outbox.runner.run_blocking
    for minute_us in (0, KEPT_US, KEPT_US + MINUTE_US):
        run(partial(minutes.add, clock=world.outbox.own_clock, gathered={("mail", minute_us): Sums()}))
    run(lambda c: statements.prune(c, KEPT_US, 0))
    assert world.stage.rows("SELECT minute_us FROM hookware_minute ORDER BY 1") == [KEPT_US, KEPT_US + MINUTE_US]


async def of_an_app(stage: Stage) -> None:
    tries = 0

    @stage.task_handler("/worker")
    def worker() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ValueError

    async with stage.running(queues=[Queue("mail")]):
        await taskqueue.add_async(url="/worker", queue_name="mail", retry_options=AT_ONCE, transactional=False)
        await stage.settled(2)
    counted = "SELECT queue_name, sum(completed_count), sum(failed_count) FROM hookware_minute GROUP BY 1 ORDER BY 1"
    found = [(name, int(done), int(failed)) for name, done, failed in stage.rows(counted)]
    assert found == [("", 1, 1), ("mail", 1, 1)]


@EVERY_DATABASE_ON_A_LOOP
async def test_an_app_writes_down_what_it_counted_when_it_stops(stage: Stage) -> None:
    await of_an_app(stage)


@EVERY_ASYNC_DRIVER
async def test_it_does_so_on_an_async_engine(async_stage: Stage) -> None:
    await of_an_app(async_stage)


class Impatient(Env):
    """Pauses take no time, and are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.paused: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.paused.append(seconds)
        await anyio.lowlevel.checkpoint()


async def test_it_is_written_ten_seconds_after_the_first_and_never_while_nothing_ends() -> None:
    env, events = Impatient(), Events()
    written: list[Gathered] = []
    told = anyio.Event()

    async def write(gathered: Gathered) -> None:
        written.append(gathered)
        told.set()

    counting = Minutes(write, env, events, Health(env))
    async with anyio.create_task_group() as loops:
        loops.start_soon(counting.run)
        await anyio.wait_all_tasks_blocked()
        assert (written, env.paused) == ([], [])
        events.emit(settled(Complete()))
        await told.wait()
        await anyio.wait_all_tasks_blocked()
        assert (len(written), env.paused) == (1, [10.0])
        counting.stop()
