"""When does a schedule come due: App Engine's English schedules as values, and what every schedule can say.

Source: `groctimespecification` of the App Engine SDK, whose answers are the golden vectors of the tests.
"""

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Protocol

from hookware.core.cron_text import DaysText, IntervalText, parse_text
from hookware.core.wall_clock import clamped, instant_from, is_representable, next_instant, wall_at

MINUTE_US = 60_000_000
_SECOND_US = 1_000_000
_LAST_YEAR = 9999


class Schedule(Protocol):
    """What every schedule can say, whatever language it was written in."""

    @property
    def counts_from_end(self) -> bool:
        """True: the next time counts from the end of the previous run, not from when it was due."""

    def next_after(self, us: int) -> int | None:
        """Give the first time after `us`, in microseconds since the epoch; None if there is none any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """`every 5 minutes`: so long after the end of the previous run, at a whole minute."""

    period_us: int

    @property
    def counts_from_end(self) -> bool:
        """True."""
        return True

    def next_after(self, us: int) -> int | None:
        """Give the time one interval after `us`, its seconds cut off."""
        return (us + self.period_us) // MINUTE_US * MINUTE_US


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """`every 5 minutes from 10:00 to 14:00` or `synchronized`: every day a grid of elapsed time from its start on.

    A start that the clock skips moves to the first minute that it shows; of two equal ones, the first counts.
    `start` and `end` are minutes after midnight. Without an end, a grid goes on until the next one begins.
    """

    period_us: int
    start: int
    end: int | None
    zone: tzinfo

    @property
    def counts_from_end(self) -> bool:
        """False."""
        return False

    def next_after(self, us: int) -> int | None:
        """Give the first point of a grid after `us`."""
        us = clamped(us)
        if not is_representable(us):
            return None
        starts = self._near(us, self.start)
        start = max(at for at in starts if at <= us)
        next_start = min(at for at in starts if at > us)
        point = start + ((us - start) // self.period_us + 1) * self.period_us
        return point if point < next_start and point <= self._end_of(start) else next_start

    def _end_of(self, start: int) -> int:
        if self.end is None:
            return start + 10 * 86_400 * _SECOND_US
        return min(at for at in self._near(start, self.end) if at >= start)

    def _near(self, us: int, minute: int) -> list[int]:
        """Give when the clock shows a time of day around an instant; tomorrow's may have passed, if it was set back."""
        today = wall_at(us, self.zone).date()
        days = (today + timedelta(days=days) for days in range(-1, 3))
        return [instant_from(_at(day, minute), self.zone) for day in days]


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """`every mon,wed 10:10` or `1,15 of month 04:00`: when the clock shows a time of day on certain days.

    On a day whose clock skips that time there is none; where it shows it twice, there are two.
    """

    days: DaysText
    zone: tzinfo

    @property
    def counts_from_end(self) -> bool:
        """False."""
        return False

    def next_after(self, us: int) -> int | None:
        """Give the first such instant after `us`."""
        return next_instant(us, self.zone, self._next_wall)

    def _next_wall(self, wall: datetime) -> datetime | None:
        walls = (_at(day, self.days.minute) for day in matching_days(self.days, wall.date()))
        return next((at for at in walls if at > wall), None)


def parse_schedule(text: str, zone: tzinfo) -> Interval | Grid | Days:
    """Read an English schedule; its times are those that clocks show in `zone`.

    Raises:
        ScheduleTextError: it is none.
    """
    match parse_text(text):
        case IntervalText(start=None) as every:
            return Interval(period_us=every.seconds * _SECOND_US)
        case IntervalText(start=int(start)) as every:
            return Grid(period_us=every.seconds * _SECOND_US, start=start, end=every.end, zone=zone)
        case DaysText() as days:
            return Days(days=days, zone=zone)
        case other:
            raise AssertionError(f"{other!r} is no schedule")  # pragma: no cover - the cases above are all


def matching_days(days: DaysText, first: date) -> Iterator[date]:
    """Give the days from `first` on that match, in order."""
    for year in range(first.year, _LAST_YEAR + 1):
        for month in sorted(days.months):
            if (year, month) < (first.year, first.month):
                continue
            yield from (day for day in _days_of(days, year, month) if day >= first)


def _days_of(days: DaysText, year: int, month: int) -> Iterator[date]:
    for number in range(1, monthrange(year, month)[1] + 1):
        day = date(year, month, number)
        if days.monthdays:
            if number in days.monthdays:
                yield day
        elif day.isoweekday() % 7 in days.weekdays and (number + 6) // 7 in days.ordinals:
            yield day


def _at(day: date, minute: int) -> datetime:
    return datetime(day.year, day.month, day.day, minute // 60, minute % 60)  # noqa: DTZ001 - what the wall shows
