"""Cron entries, and which of the times that have passed is made up for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware.core.cron import CronEntry, Firing, cron_entries, firing
from hookware.core.retry import RetryOptions
from hookware.core.schedule import Schedule, parse_schedule
from hookware.core.yaml_values import SettingError

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
START_US = 1_243_843_200_000_000  # 2009-06-01 08:00


def test_everything_of_an_entry() -> None:
    entry = {
        "url": "/tasks/summary?kind=daily",
        "schedule": "every 24 hours",
        "timezone": "Australia/NSW",
        "description": "daily summary",
        "target": "v2.reports",
        "retry_parameters": {"job_retry_limit": 3, "job_age_limit": "1d", "min_backoff_seconds": 2.5},
        "attempt_deadline": "120.5s",
    }
    assert cron_entries({"application": "my-app", "cron": [entry]}) == (
        CronEntry(
            url="/tasks/summary?kind=daily",
            schedule="every 24 hours",
            timezone="Australia/NSW",
            description="daily summary",
            target="v2.reports",
            retry=RetryOptions(task_retry_limit=3, task_age_limit=86_400, min_backoff_seconds=2.5),
            attempt_deadline_seconds=120.5,
        ),
    )


def test_an_entry_needs_a_url_and_a_schedule() -> None:
    (entry,) = cron_entries({"cron": [{"url": "/", "schedule": "every day 00:00"}]})
    assert entry == CronEntry(url="/", schedule="every day 00:00")
    assert (entry.timezone, entry.retry) == ("UTC", None)
    assert cron_entries({"cron": None}) == cron_entries({}) == ()


@pytest.mark.parametrize(
    ("text", "found"), [("30s", 30), ("0.5s", 0.5), ("1e2s", 100), (" 5 s ", 5), ("86400s", 86_400)]
)
def test_attempt_deadlines(text: str, found: float) -> None:
    (entry,) = cron_entries({"cron": [{"url": "/", "schedule": "every day 00:00", "attempt_deadline": text}]})
    assert entry.attempt_deadline_seconds == found


def test_retry_parameters_may_be_zero() -> None:
    retry = {"job_retry_limit": 0, "job_age_limit": "0s", "max_backoff_seconds": 0}
    (entry,) = cron_entries({"cron": [{"url": "/", "schedule": "every day 00:00", "retry_parameters": retry}]})
    assert entry.retry == RetryOptions(task_retry_limit=0, task_age_limit=0, max_backoff_seconds=0)


def test_the_name_changes_with_what_makes_it_another_entry() -> None:
    entry = CronEntry(url="/a", schedule="every day 00:00")
    assert entry.name == CronEntry(url="/a", schedule="every day 00:00", description="new").name
    others = [
        CronEntry(url="/b", schedule="every day 00:00"),
        CronEntry(url="/a", schedule="every day 00:01"),
        CronEntry(url="/a", schedule="every day 00:00", timezone="Asia/Tokyo"),
    ]
    assert len({entry.name, *(other.name for other in others)}) == 4


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"url": None}, ()),
        ({"schedule": None}, ()),
        ({"url": "tasks"}, ("url",)),
        ({"url": "http://example.com/"}, ("url",)),
        ({"url": "/a\n"}, ("url",)),
        ({"url": "/a/../b"}, ("url",)),
        ({"schedule": 5}, ("schedule",)),
        ({"timezone": 5}, ("timezone",)),
        ({"description": "x" * 500}, ("description",)),
        ({"description": "two\nlines"}, ("description",)),
        ({"target": "A_b"}, ("target",)),
        ({"name": "x"}, ("name",)),
        ({"retry_parameters": {"task_retry_limit": 1}}, ("retry_parameters", "task_retry_limit")),
        ({"retry_parameters": {"job_retry_limit": -1}}, ("retry_parameters", "job_retry_limit")),
        ({"retry_parameters": {"job_age_limit": "1d2h"}}, ("retry_parameters", "job_age_limit")),
        ({"retry_parameters": {"max_backoff_seconds": -1}}, ("retry_parameters", "max_backoff_seconds")),
        ({"retry_parameters": {"max_doublings": "x"}}, ("retry_parameters", "max_doublings")),
        *(
            ({"attempt_deadline": each}, ("attempt_deadline",))
            for each in ("30", 30, "0s", "86401s", "1m", "nans", "-1s", "infs", "s", "xs")
        ),
    ],
)
def test_a_refusal_says_where(changes: dict[str, object], path: tuple[str | int, ...]) -> None:
    entry = {"url": "/", "schedule": "every day 00:00", **changes}
    with pytest.raises(SettingError) as caught:
        cron_entries({"cron": [entry]})
    assert caught.value.path == ("cron", 0, *path)


@dataclass(frozen=True)
class Listed:
    """A schedule of given times."""

    times: Sequence[int]
    counts_from_end: bool = False

    def next_after(self, us: int) -> int | None:
        return min((at for at in self.times if at > us), default=None)


@given(
    st.sets(st.integers(0, 60), max_size=20),
    st.none() | st.integers(-5, 65),
    st.integers(-5, 65),
    st.integers(0, 70),
)
def test_only_the_latest_time_is_made_up_for_and_only_within_the_grace(
    times: set[int], next_us: int | None, now_us: int, grace_us: int
) -> None:
    found = firing(Listed(sorted(times)), next_us, now_us, grace_us)
    if next_us is None or next_us > now_us:
        assert found == Firing(fire_us=None, next_us=next_us)
        return
    passed = [at for at in times if next_us <= at <= now_us and now_us - at <= grace_us]
    assert found.fire_us == max(passed, default=None)
    assert found.next_us == min((at for at in times if at > now_us), default=None)


texts = st.sampled_from(
    ["every day 01:30", "every 5 minutes synchronized", "every 7 mins from 8:00 to 9:00", "1 of month 00:00"]
)


@pytest.mark.slow
@given(texts, st.integers(0, 40 * 24 * 60), st.integers(0, 10 * 24 * 60), st.sampled_from([0, 1, 60, 3000]))
def test_real_schedules_fire_their_latest_time(text: str, minute: int, downtime: int, grace: int) -> None:
    schedule = parse_schedule(text, ZoneInfo("Europe/Berlin"))
    next_us = schedule.next_after(START_US + minute * MINUTE_US)
    assert next_us is not None
    now_us, grace_us = next_us + downtime * MINUTE_US + 1, grace * MINUTE_US
    found = firing(schedule, next_us, now_us, grace_us)
    latest_us, at_us = next_us, schedule.next_after(next_us)
    while at_us is not None and at_us <= now_us:
        latest_us, at_us = at_us, schedule.next_after(at_us)
    assert found == Firing(fire_us=latest_us if now_us - latest_us <= grace_us else None, next_us=at_us)


@given(st.integers(1, 100), st.integers(0, 100_000), st.integers(0, 200), st.integers(0, MINUTE_US))
def test_an_interval_goes_on_as_if_each_run_had_ended_at_once(period: int, late: int, grace: int, rest_us: int) -> None:
    schedule = parse_schedule(f"every {period} minutes", UTC)
    now_us = START_US + late * MINUTE_US + rest_us
    found = firing(schedule, START_US, now_us, grace * MINUTE_US)
    latest_us = START_US + (now_us - START_US) // (period * MINUTE_US) * period * MINUTE_US
    is_due = now_us - latest_us <= grace * MINUTE_US
    assert found == Firing(fire_us=latest_us if is_due else None, next_us=latest_us + period * MINUTE_US)


def test_every_time_fires_once_whatever_the_moments_of_looking() -> None:
    schedule: Schedule = parse_schedule("every 10 mins synchronized", UTC)
    next_us: int | None = START_US
    fired = []
    for second in range(0, 7200, 7):
        found = firing(schedule, next_us, START_US + second * 1_000_000, HOUR_US)
        next_us = found.next_us
        fired += [found.fire_us] if found.fire_us is not None else []
    assert fired == [START_US + tens * 10 * MINUTE_US for tens in range(12)]


def test_a_year_of_downtime_is_decided_with_a_few_questions() -> None:
    asked = 0

    @dataclass(frozen=True)
    class Counting:
        inner: Schedule
        counts_from_end: bool = False

        def next_after(self, us: int) -> int | None:
            nonlocal asked
            asked += 1
            return self.inner.next_after(us)

    now_us = START_US + 365 * 24 * HOUR_US
    minutely = Counting(parse_schedule("every 1 mins synchronized", UTC))
    assert firing(minutely, START_US, now_us, now_us) == Firing(fire_us=now_us, next_us=now_us + MINUTE_US)
    assert asked < 60


def test_a_stored_time_of_an_older_schedule_does_not_fire() -> None:
    daily = parse_schedule("every day 12:00", UTC)
    assert firing(daily, START_US, START_US + HOUR_US, HOUR_US) == Firing(fire_us=None, next_us=START_US + 4 * HOUR_US)
