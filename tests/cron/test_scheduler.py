"""The scheduler, look by look: what it fires, when, how often, and what cannot stop it."""

from collections.abc import Callable
from dataclasses import dataclass

import anyio
import pytest

from hookware.config import Config
from hookware.core.cron import CronEntry
from hookware.core.lifecycle import State
from hookware.scheduler import Planned, planned
from hookware.store.sql import cron_rows
from tests.cron.clockwork import DAY_US, HOUR_US, MINUTE_US, START_US, Clockwork, entry
from tests.cron.conftest import MakePost
from tests.databases import Database

SQLITE = pytest.mark.parametrize(
    ("anyio_backend", "database"),
    [("asyncio", "sqlite"), ("trio", "sqlite"), ("asyncio", "sqlite+aiosqlite")],
    indirect=["database"],
)
HOURLY = entry("/hourly", "every 1 hours synchronized")
NOON = entry("/noon", "every day 12:00")
FIVE = entry("/five", "every 5 minutes")


# What is fired.


@SQLITE
async def test_each_time_is_fired_once_and_none_before_it(make_post: MakePost) -> None:
    post = make_post(HOURLY, NOON)
    await post.look()
    assert post.tasks() == []
    await post.look(3599)
    assert post.tasks() == []
    await post.look(1)
    await post.look()
    assert post.tasks() == [("/hourly", 1)]
    assert [(event.name, event.time_us) for event in post.fired] == [(HOURLY.name, START_US + HOUR_US)]
    for _ in range(11):
        await post.look(3600)
    assert post.tasks() == sorted([*(("/hourly", hour) for hour in range(1, 13)), ("/noon", 12)], key=lambda t: t[::-1])


async def test_a_task_of_cron_is_a_get_of_its_own_queue_and_carries_nothing(
    make_post: MakePost, database: Database
) -> None:
    post = make_post(CronEntry(url="/grün", schedule="every day 00:01", attempt_deadline_seconds=7.5))
    await post.look()
    await post.look(75)
    look = database.look()
    columns = "queue_name, method, url, headers, body, deadline_us, eta_us, created_us, retry_options, name"
    assert look.rows(f"SELECT {columns} FROM hookware_task") == [
        ("__cron", "GET", "/gr%C3%BCn", "[]", b"", 7_500_000, START_US + MINUTE_US, START_US + 75_000_000, None, None)
    ]
    look.close()


async def test_the_local_day_counts_not_the_one_of_utc(make_post: MakePost) -> None:
    post = make_post(entry("/new-york", "every day 23:30", "America/New_York"))
    await post.look()
    for _ in range(48):
        await post.look(3600)
    assert post.tasks() == [("/new-york", 4.5), ("/new-york", 28.5)]


async def test_of_several_processes_that_see_one_time_one_adds_its_task(make_post: MakePost) -> None:
    posts = [make_post(HOURLY) for _ in range(3)]
    await posts[0].look()
    rows = []
    for post in posts:
        await post.outbox.prepare()
        post.env.advance(3600)
        rows.append((await post.scheduler._look())[1])
    for post, row in zip(posts, rows, strict=True):
        # As if all had looked at the same moment.
        await post.scheduler._advance(row[HOURLY.name], post.env.now_us())
    assert posts[0].tasks() == [("/hourly", 1)]
    assert [len(post.fired) for post in posts] == [1, 0, 0]


async def test_a_pause_counts_at_once_for_those_who_have_looked_already(make_post: MakePost) -> None:
    class Paused(Clockwork):
        def fp(self, name: str) -> None:
            if name == "cron.fire.before" and self.now_us() >= START_US + HOUR_US:
                look.execute("UPDATE hookware_cron SET paused = 1")

    post = make_post(HOURLY, env=Paused())
    look = post.database_look
    await post.look()
    await post.look(3600)
    assert post.tasks() == []


@pytest.mark.parametrize("failpoint", ["cron.fire.before", "cron.fire.committed"])
async def test_who_dies_around_the_commit_neither_loses_a_time_nor_doubles_it(
    make_post: MakePost, failpoint: str
) -> None:
    post = make_post(HOURLY, NOON)
    await post.look()
    post.env.broken[failpoint] = OSError("the plug was pulled")
    with pytest.raises(OSError, match="the plug was pulled"):
        await post.look(3600)
    assert len(post.tasks()) == (failpoint == "cron.fire.committed")
    await make_post(HOURLY, NOON, env=post.env).look()
    assert post.tasks() == [("/hourly", 1)]


# What was missed.


@pytest.mark.parametrize(
    ("away_hours", "expected"),
    [
        (1, [("/hourly", 1)]),
        (5.5, [("/hourly", 5)]),
        (12.5, [("/hourly", 12), ("/noon", 12)]),
        (13.5, [("/hourly", 13)]),
    ],
)
async def test_of_missed_times_the_latest_is_made_up_for_within_the_grace(
    make_post: MakePost, away_hours: float, expected: list[tuple[str, float]]
) -> None:
    post = make_post(HOURLY, NOON)
    await post.look()
    await post.look(away_hours * 3600)
    await post.look()
    assert post.tasks() == expected
    await post.look((36 - away_hours) * 3600)
    assert post.tasks()[-1] == ("/noon", 36), "what was missed has not stopped the entry"


async def test_the_grace_is_the_configured_one(make_post: MakePost) -> None:
    post = make_post(NOON, config=Config(cron_grace_seconds=60))
    await post.look()
    await post.look(12 * 3600 + 60)
    assert post.tasks() == [("/noon", 12)]
    await post.look(24 * 3600 + 0.001)
    assert post.tasks() == [("/noon", 12)]


async def test_who_stood_still_between_looking_and_firing_does_not_fire_what_is_too_late(make_post: MakePost) -> None:
    class Frozen(Clockwork):
        def fp(self, name: str) -> None:
            if name == "cron.fire.before" and self.now_us() == START_US + 12 * HOUR_US:
                self.advance(3601)

    post = make_post(NOON, env=Frozen())
    await post.look()
    await post.look(12 * 3600)
    await post.look()
    assert post.tasks() == []
    await post.look(23 * 3600)
    assert post.tasks() == [("/noon", 36)]


# Intervals.


@SQLITE
async def test_an_interval_counts_from_the_end_of_the_run(make_post: MakePost) -> None:
    post = make_post(FIVE)
    assert await post.look(30) == 30 * 1.0, "asked again after thirty polls at the latest"
    await post.look(270)
    assert post.tasks() == [("/five", 5 / 60)]
    for _ in range(20):
        assert await post.look(60) == 1.0, "while it runs, its end is waited for"
    assert post.tasks() == [("/five", 5 / 60)]
    post.end_tasks()
    await post.look(30)  # it sees the end at 0:25:30
    await post.look(269)
    assert post.tasks() == []
    await post.look(1)
    assert post.tasks() == [("/five", 30 / 60)]


async def test_a_run_that_is_dead_has_ended_too(make_post: MakePost, database: Database) -> None:
    post = make_post(FIVE)
    await post.look()
    await post.look(300)
    look = database.look()
    look.execute("UPDATE hookware_task SET state = ?", int(State.DEAD))
    look.close()
    await post.look()
    await post.look(300)
    assert post.tasks() == [("/five", 5 / 60), ("/five", 10 / 60)]


async def test_two_who_see_the_end_of_a_run_agree_on_the_next_time(make_post: MakePost) -> None:
    one, other = make_post(FIVE), make_post(FIVE)
    await one.look()
    await other.look()
    for post in (one, other):
        await post.look(300)
    assert one.tasks() == [("/five", 5 / 60)]
    one.end_tasks()
    for _ in range(4):
        for post in (one, other):
            await post.look(100)
    assert one.tasks() == [("/five", 11 / 60)], "five minutes after 0:06:40, at a whole minute"


# Sleep.


async def test_it_sleeps_until_the_next_time_and_thirty_polls_at_most(make_post: MakePost) -> None:
    post = make_post(HOURLY, NOON, config=Config(poll_seconds=10.0))
    assert await post.look() == 300
    assert await post.look(3480) == 120
    assert await post.look(119.999) == pytest.approx(0.001)
    assert await post.look(0.001) == 300


async def test_what_the_database_takes_is_not_slept_as_well(make_post: MakePost) -> None:
    class Slow(Clockwork):
        def fp(self, name: str) -> None:
            if name == "cron.fire.committed":
                self.advance(20)

    post = make_post(entry("/a", "every 1 minutes synchronized"), env=Slow(), config=Config(poll_seconds=10.0))
    assert await post.look() == 60
    assert await post.look(59.5) == 0.5
    assert await post.look(0.5) == 40, "the fire took 20 of the 60"
    assert await post.look(25) == 15


async def test_an_entry_that_is_paused_is_looked_at_again_at_its_time(make_post: MakePost) -> None:
    post = make_post(HOURLY, config=Config(poll_seconds=600.0))
    await post.look()
    await post.cron.pause(HOURLY.name)
    assert await post.look(1800) == 1800
    assert await post.look(1800) == 30 * 600


async def test_only_the_clock_of_the_database_counts(make_post: MakePost) -> None:
    database_clock, skewed = Clockwork(), Clockwork()
    skewed.advance(-7 * DAY_US / 1e6)
    post = make_post(NOON, env=skewed)
    post.outbox.own_clock = lambda _connection: database_clock.now_us()
    await post.look()
    skewed.advance(14 * DAY_US / 1e6)
    await post.look()
    assert post.tasks() == []
    database_clock.advance(12 * 3600)
    await post.look()
    assert post.tasks() == [("/noon", 12)]


# What is broken.


@dataclass(frozen=True)
class Odd:
    """A schedule by a function."""

    answer: Callable[[int], int | None]
    counts_from_end: bool = False

    def next_after(self, us: int) -> int | None:
        return self.answer(us)


def fail(_us: int) -> int | None:
    raise OverflowError("no such date")


ODD = {
    "raises": fail,
    "goes back": lambda us: us - HOUR_US,
    "stands still": lambda us: us,
    "breaks later": lambda us: fail(us) if us > START_US + MINUTE_US else START_US + 2 * MINUTE_US,
}


@pytest.mark.slow
@pytest.mark.parametrize("answer", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("counts_from_end", [False, True])
async def test_a_broken_entry_holds_up_no_other_and_does_not_spin(
    make_post: MakePost, answer: Callable[[int], int | None], counts_from_end: bool
) -> None:
    broken = Planned(entry("/broken", "every day 00:01"), Odd(answer, counts_from_end))
    post = make_post(HOURLY, plans=[broken, *planned([HOURLY])])
    await post.outbox.prepare()
    async with anyio.create_task_group() as loops:
        loops.start_soon(post.scheduler.run)
        for _ in range(61):
            await post.env.until_asleep()
            post.env.move(60)
        await post.env.until_asleep()
        post.scheduler.stop()
    assert ("/hourly", 1) in post.tasks()
    assert ("/broken", 1) not in post.tasks()
    assert not post.health.ok
    assert min(post.env.slept) >= 0.05


async def test_a_database_that_refuses_every_fire_is_asked_again_in_peace(make_post: MakePost) -> None:
    class Away(Clockwork):
        is_away = True

        def fp(self, name: str) -> None:
            if self.is_away and name == "cron.fire.before":
                raise OSError("the database is away")

    env = Away()
    post = make_post(HOURLY, entry("/other", "every 1 hours synchronized"), env=env)
    await post.look()
    env.advance(3600)
    async with anyio.create_task_group() as loops:
        loops.start_soon(post.scheduler.run)
        for _ in range(20):
            await env.until_asleep()
            env.move(2)
        assert post.tasks() == []
        env.is_away = False
        await env.until_asleep()
        post.scheduler.stop()
    assert post.tasks() == [("/hourly", 1), ("/other", 1)]
    assert min(env.slept[:20]) >= 0.05
    assert max(env.slept[:20]) <= 2.0


async def test_a_schedule_that_ends_is_left_alone(make_post: MakePost) -> None:
    last_us = START_US + MINUTE_US
    once = Planned(entry("/once", "every day 00:01"), Odd(lambda us: last_us if us < last_us else None))
    post = make_post(plans=[once])
    await post.look()
    await post.look(100)
    assert post.tasks() == [("/once", 1 / 60)]
    assert await post.look(DAY_US) == 30
    assert len(post.tasks()) == 1


async def test_without_entries_nobody_asks_the_database(make_post: MakePost) -> None:
    post = make_post()
    await post.scheduler.run()  # the tables are not even there
    assert post.env.slept == []


async def test_one_that_was_stopped_before_it_began_fires_nothing(make_post: MakePost) -> None:
    post = make_post(HOURLY)
    await post.look()
    post.env.advance(3600)
    post.scheduler.stop()
    with anyio.fail_after(5):
        await post.scheduler.run()
    assert post.tasks() == []


async def test_a_stop_does_not_wait_for_all_entries_that_are_due(make_post: MakePost) -> None:
    class Stopped(Clockwork):
        def fp(self, name: str) -> None:
            if name == "cron.fire.committed":
                post.scheduler.stop()

    post = make_post(*(entry(f"/{number}", "every day 00:01") for number in range(10)), env=Stopped())
    await post.look()
    post.env.advance(60)
    await post.scheduler.run()
    assert len(post.tasks()) == 1


# Names.


async def test_of_two_entries_with_one_name_the_later_one_counts(make_post: MakePost, database: Database) -> None:
    twice = [CronEntry(url="/a", schedule="every day 00:01", attempt_deadline_seconds=each) for each in (1.0, 2.0)]
    post = make_post(*twice)
    await post.look()
    await post.look(60)
    look = database.look()
    assert look.rows("SELECT deadline_us FROM hookware_task") == [2_000_000]
    look.close()


async def test_long_names_fit_the_column_and_stay_apart(make_post: MakePost) -> None:
    one, other = (entry("/" + "a" * 2000 + end, "every day 00:01") for end in "xy")
    assert one.name != other.name
    assert len(one.name) == len(other.name) == 500
    post = make_post(one, other)
    await post.look()
    await post.look(60)
    assert len(post.tasks()) == 2


async def test_rows_that_others_wrote_at_the_same_moment_stay(make_post: MakePost) -> None:
    post = make_post(HOURLY)
    await post.look()
    first = {HOURLY.name: ("", None)}
    await post.outbox.runner.run(lambda connection: cron_rows.make(connection, first))
    await post.look(3600)
    assert post.tasks() == [("/hourly", 1)]


def test_the_clockwork_begins_on_a_thursday_at_midnight() -> None:
    assert (START_US % DAY_US, START_US // DAY_US % 7) == (0, 0)
