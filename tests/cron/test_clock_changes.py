"""What is fired on the days on which clocks are set forward or back, looked at every five minutes."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from hookware.config import Config
from tests.cron.clockwork import HOUR_US, START_US, Clockwork, entry
from tests.cron.conftest import MakePost

SQLITE = pytest.mark.parametrize(
    ("anyio_backend", "database"), [("asyncio", "sqlite"), ("trio", "sqlite")], indirect=["database"]
)
SPRING, AUTUMN = datetime(2026, 3, 8, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
"""New York: at 7:00 from 2:00 to 3:00; at 6:00 from 2:00 to 1:00."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schedule", "timezone", "first", "expected"),
    [
        ("every day 02:30", "America/New_York", SPRING, ["09 06:30"]),
        ("every day 01:30", "America/New_York", AUTUMN, ["01 05:30", "01 06:30", "02 06:30"]),
        ("30 2 * * *", "America/New_York", SPRING, ["08 07:00", "09 06:30"]),
        ("30 1 * * *", "America/New_York", AUTUMN, ["01 05:30", "02 06:30"]),
        ("*/30 2 * * *", "America/New_York", SPRING, ["09 06:00", "09 06:30"]),
        (
            "*/30 1 * * *", "America/New_York", AUTUMN,
            ["01 05:00", "01 05:30", "01 06:00", "01 06:30", "02 06:00", "02 06:30"],
        ),
        (
            "every 12 hours synchronized", "America/New_York", SPRING,
            ["08 05:00", "08 17:00", "09 04:00", "09 16:00"],
        ),
        (
            "every 30 mins from 02:30 to 03:30", "America/New_York", SPRING,
            ["08 07:00", "08 07:30", "09 06:30", "09 07:00", "09 07:30"],
        ),
        # Lord Howe: at 15:00 on 4 April from 2:00 to 1:30.
        (
            "every day 01:45", "Australia/Lord_Howe", datetime(2026, 4, 4, tzinfo=UTC),
            ["04 14:45", "04 15:15", "05 15:15"],
        ),
        # Berlin: at 1:00 on 29 March from 2:00 to 3:00.
        ("30 2 * * *", "Europe/Berlin", datetime(2026, 3, 29, tzinfo=UTC), ["29 01:00", "30 00:30"]),
        ("every day 02:30", "UTC", SPRING, ["08 02:30", "09 02:30"]),
    ],
)  # fmt: skip
async def test_what_is_fired(
    make_post: MakePost, schedule: str, timezone: str, first: datetime, expected: list[str]
) -> None:
    env = Clockwork()
    env.advance((first - datetime(2026, 1, 1, tzinfo=UTC)).total_seconds() - 1)
    post = make_post(entry("/a", schedule, timezone), env=env)
    await post.look()
    await post.look(1)
    for _ in range(2 * 24 * 12 - 1):
        await post.look(300)
    fired = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours) for _url, hours in post.tasks()]
    assert [f"{at:%d %H:%M}" for at in fired] == expected


DAY, GRACE = 86_400.0, Config().cron_grace_seconds


@pytest.mark.slow
@SQLITE
async def test_a_clock_that_was_a_day_ahead_for_a_moment_silences_no_entry(make_post: MakePost) -> None:
    post = make_post(entry("/daily", "every day 00:00"), entry("/hourly", "0 * * * *"), entry("/five", "every 5 mins"))
    await post.look()
    await post.look(DAY + GRACE + 1700)
    post.end_tasks()
    post.fired.clear()
    await post.look(600 - DAY - GRACE - 1700)
    for _ in range(26 * 12):
        post.end_tasks()
        await post.look(300)
    times = Counter((event.name.split()[0], (event.time_us - START_US) / HOUR_US) for event in post.fired)
    assert set(times.values()) == {1}
    assert {hour for url, hour in times if url == "/hourly"} == set(range(1, 27))
    assert {hour for url, hour in times if url == "/daily"} == {24}
    assert len([url for url, _hour in times if url == "/five"]) > 26 * 12 / 2 - 2


@pytest.mark.slow
@SQLITE
async def test_no_time_is_fired_twice_where_the_clock_steps_back_by_less_than_the_grace(make_post: MakePost) -> None:
    post = make_post(entry("/hourly", "0 * * * *"), entry("/quarterly", "*/15 * * * *"))
    steps, now, latest = random.Random(7), 0.0, 0.0
    for _ in range(400):
        then = now + steps.choice([-3000.0, -600.0, -1.0, 60.0, 300.0, 900.0, 3600.0])
        latest = max(latest, then)
        then = max(then, latest - GRACE)
        await post.look(then - now)
        now = then
    assert max(Counter((event.name, event.time_us) for event in post.fired).values()) == 1
    hours = {event.time_us // HOUR_US for event in post.fired if event.name.startswith("/hourly")}
    assert len(hours) > latest / 3600 / 2
