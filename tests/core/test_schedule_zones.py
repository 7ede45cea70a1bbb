"""Schedules in every time zone that ever changes its clocks, minute by minute around the changes."""

from datetime import timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware.core.schedule import parse_schedule
from tests.zones import (
    MINUTE_US,
    YEARS,
    Window,
    around,
    between,
    changes,
    changing_zones,
    times_near,
    walk,
    window,
    windows,
)

SKIPPED_DAYS = [("Pacific/Apia", 2011), ("Pacific/Fakaofo", 2011), ("Pacific/Kwajalein", 1993)]


@pytest.mark.slow
@pytest.mark.parametrize("year", YEARS)
def test_a_daily_time_comes_due_whenever_the_clock_shows_it(year: int) -> None:
    count = 0
    for here in windows(year, hours=26):
        begin_us, end_us = around(here, hours=26)
        for hour, minute in times_near(here):
            expected = here.instants(lambda wall, at=(hour, minute): (wall.hour, wall.minute) == at)  # type: ignore[misc] # bound at once
            found = walk(parse_schedule(f"every day {hour}:{minute:02}", here.zone), begin_us, end_us)
            assert found == between(expected, begin_us, end_us), (here.zone, hour, minute)
            count += 1
    assert count > 100


@pytest.mark.slow
@pytest.mark.parametrize("year", YEARS)
def test_a_grid_counts_elapsed_time_from_the_start_of_each_day(year: int) -> None:
    count = 0
    for here in windows(year, hours=50):
        begin_us, end_us = around(here, hours=26)
        (hour, minute), *_, (end_hour, end_minute) = times_near(here)
        from_to = (hour * 60 + minute, end_hour * 60 + end_minute)
        for period, (start, end) in [(30, from_to), (45, (1320, 120)), (1440, (0, None)), (120, (0, None))]:
            tail = "synchronized" if end is None else f"from {clock(start)} to {clock(end)}"
            found = walk(parse_schedule(f"every {period} mins {tail}", here.zone), begin_us, end_us)
            assert found == between(grid(here, period, start, end), begin_us, end_us), (here.zone, period, tail)
            count += 1
    assert count > 20


def clock(minute: int) -> str:
    return f"{minute // 60}:{minute % 60:02}"


def grid(here: Window, period: int, start: int, end: int | None) -> list[int]:
    """Give the points of a grid by its definition: from each day's start on, until its end or the next start."""
    first, last = here.walls[0].date(), here.walls[-1].date()
    days = [first + timedelta(days=d) for d in range((last - first).days + 2)]
    starts = sorted({us for day in days if (us := here.first_past(day, start)) is not None})
    ends = sorted({us for day in days if end is not None and (us := here.first_past(day, end)) is not None})
    points = []
    for start_us, next_us in zip(starts, [*starts[1:], here.begin_us + len(here.walls) * MINUTE_US], strict=True):
        until_us = min((us for us in ends if us >= start_us), default=next_us)
        points += [us for us in range(start_us, next_us, period * MINUTE_US) if us <= until_us]
    return points


def test_a_clock_that_is_set_back_over_midnight_begins_the_new_day_once() -> None:
    zone = ZoneInfo("America/St_Johns")  # in 2010 from 0:01 to 23:01
    here = window(zone, changes(zone, 2010)[1], hours=50)
    begin_us, end_us = around(here, hours=26)
    schedule, points = parse_schedule("every 6 hours synchronized", zone), grid(here, 360, 0, None)
    assert walk(schedule, begin_us, end_us) == between(points, begin_us, end_us)
    for us in range(*around(here, hours=3), MINUTE_US):
        assert schedule.next_after(us) == min(point for point in points if point > us)


@pytest.mark.parametrize(("name", "year"), SKIPPED_DAYS)
def test_a_day_that_is_skipped_whole_has_no_times(name: str, year: int) -> None:
    zone = ZoneInfo(name)
    for change_us in changes(zone, year):
        here = window(zone, change_us, hours=50)
        begin_us, end_us = around(here, hours=26)
        expected = here.instants(lambda wall: (wall.hour, wall.minute) == (12, 0))
        assert walk(parse_schedule("every day 12:00", zone), begin_us, end_us) == between(expected, begin_us, end_us)
        every = walk(parse_schedule("every 6 hours from 12:00 to 11:59", zone), begin_us, end_us)
        assert every == between(grid(here, 360, 720, 719), begin_us, end_us)


@pytest.mark.slow
@given(st.data())
def test_from_any_instant_the_next_time_is_the_first_one_that_the_clock_shows(data: st.DataObject) -> None:
    year = data.draw(st.sampled_from(YEARS))
    zone = ZoneInfo(data.draw(st.sampled_from(changing_zones(year))))
    here = window(zone, data.draw(st.sampled_from(changes(zone, year))), hours=30)
    wall = data.draw(st.sampled_from(here.walls))
    weekday = data.draw(st.none() | st.just(wall.strftime("%A").lower()))
    us = here.begin_us + data.draw(st.integers(0, len(here.walls) * MINUTE_US - 1))
    schedule = parse_schedule(f"every {weekday or 'day'} {wall.hour}:{wall.minute:02}", zone)
    expected = here.instants(
        lambda w: (w.hour, w.minute) == (wall.hour, wall.minute) and weekday in {None, w.strftime("%A").lower()}
    )
    later = [at for at in expected if at > us]
    found = schedule.next_after(us)
    assert found is not None
    if later:
        assert found == later[0]
    else:
        assert found >= here.begin_us + len(here.walls) * MINUTE_US


@pytest.mark.slow
@given(st.data(), st.integers(-(2**62), 2**62) | st.integers(0, 4 * 10**15))
def test_every_schedule_moves_on_in_every_zone_from_every_instant(data: st.DataObject, us: int) -> None:
    zone = ZoneInfo(data.draw(st.sampled_from(sorted(available_timezones() - {"localtime"}))))
    texts = ["every 5 hours", "every 1 mins from 23:00 to 1:00", "every 90 mins synchronized", "29 of feb 2:30"]
    schedule = parse_schedule(data.draw(st.sampled_from([*texts, "every day 0:00", "5th sun 2:00"])), zone)
    for _ in range(3):
        next_us = schedule.next_after(us)
        if next_us is None:
            return
        assert next_us > us
        us = next_us
