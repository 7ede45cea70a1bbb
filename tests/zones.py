"""Every time zone that ever changes its clocks, and what the clock shows, minute by minute, around the changes."""

import bisect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from hookware.core.schedule import Schedule

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
YEARS = (1988, 2026, 2041)


def wall_at(us: int, zone: ZoneInfo) -> datetime:
    return (EPOCH + us * MICROSECOND).astimezone(zone).replace(tzinfo=None, fold=0)


def offset_at(us: int, zone: ZoneInfo) -> timedelta | None:
    return (EPOCH + us * MICROSECOND).astimezone(zone).utcoffset()


@cache
def changes(zone: ZoneInfo, year: int) -> tuple[int, ...]:
    """Give the instants at which the clocks of a zone change in a year; no zone changes them twice in one day."""
    begin_us = (datetime(year, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
    days = [begin_us + day * 24 * HOUR_US for day in range(367)]
    found = []
    for before_us, after_us in itertools.pairwise(days):
        old = offset_at(before_us, zone)
        if offset_at(after_us, zone) != old:
            minutes = range(before_us, after_us + 1, MINUTE_US)
            found.append(minutes[bisect.bisect_left(minutes, True, key=lambda us, old=old: offset_at(us, zone) != old)])  # type: ignore[misc] # bound at once
    return tuple(found)


@cache
def changing_zones(year: int) -> tuple[str, ...]:
    """Give one name for every set of zones whose clocks change alike in a year."""
    kinds: dict[tuple[tuple[int, timedelta | None], ...], str] = {}
    for name in sorted(available_timezones() - {"localtime"}):
        zone = ZoneInfo(name)
        here = tuple((us, offset_at(us, zone)) for us in changes(zone, year))
        if here:
            kinds.setdefault(here, name)
    return tuple(kinds.values())


@dataclass(frozen=True, slots=True)
class Window:
    """The minutes around a change of the clocks, and what the clock on the wall shows at each."""

    zone: ZoneInfo
    begin_us: int
    walls: tuple[datetime, ...]
    latest: tuple[datetime, ...]  # shown until then

    @property
    def length_us(self) -> int:
        return len(self.walls) * MINUTE_US

    def instants(self, matches: Callable[[datetime], bool]) -> list[int]:
        return [self.begin_us + i * MINUTE_US for i, wall in enumerate(self.walls) if matches(wall)]

    def first_past(self, day: date, minute_of_day: int) -> int | None:
        """Give the first instant at which the wall clock is at or past a time of a day."""
        target = datetime(day.year, day.month, day.day, minute_of_day // 60, minute_of_day % 60)  # noqa: DTZ001 - a wall clock's
        if self.walls[0] >= target:
            return None
        minute = bisect.bisect_left(self.latest, target)
        return self.begin_us + minute * MINUTE_US if minute < len(self.walls) else None


def window(zone: ZoneInfo, change_us: int, hours: int) -> Window:
    begin_us = change_us - hours * HOUR_US
    walls = tuple(wall_at(begin_us + i * MINUTE_US, zone) for i in range(2 * hours * 60))
    return Window(zone, begin_us, walls, tuple(itertools.accumulate(walls, max)))


def windows(year: int, hours: int) -> Iterator[Window]:
    """Give a window of so many hours before and after every change of a year."""
    for name in changing_zones(year):
        zone = ZoneInfo(name)
        yield from (window(zone, change_us, hours) for change_us in changes(zone, year))


def walk(schedule: Schedule, begin_us: int, end_us: int) -> list[int]:
    """Give all times of a schedule from `begin_us` on and before `end_us`, each after the one before."""
    found: list[int] = []
    at_us: int | None = begin_us - 1
    while at_us is not None and (at_us := schedule.next_after(at_us)) is not None and at_us < end_us:
        assert not found or at_us > found[-1]
        found.append(at_us)
    return found


def around(here: Window, hours: int) -> tuple[int, int]:
    middle_us = here.begin_us + len(here.walls) // 2 * MINUTE_US
    return middle_us - hours * HOUR_US, middle_us + hours * HOUR_US


def between(instants: list[int], begin_us: int, end_us: int) -> list[int]:
    return [us for us in instants if begin_us <= us < end_us]


def times_near(here: Window) -> list[tuple[int, int]]:
    """Give times of day that the change touches: just before it, at it, in what is skipped or repeated, after it."""
    middle = len(here.walls) // 2
    shown = [here.walls[middle - 1], here.walls[middle]]
    near = [wall + timedelta(minutes=m) for wall in shown for m in (-30, -1, 0, 1, 29)]
    return sorted({(wall.hour, wall.minute) for wall in near})
