"""The cron entries of the simulation, each with a second opinion: at which minutes of a clock on the wall it is due."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from hookware.core.cron import CronEntry
from verification.simulation.cron_world import INTERVAL_URL

INTERVAL_SECONDS = 7 * 3600
_MINUTE = 60


@dataclass(frozen=True, slots=True)
class Watched:
    """An entry; `is_due` says so of what the clock shows; None: it counts from the end of its run."""

    entry: CronEntry
    is_due: Callable[[datetime], bool] | None


def _daily(hour: int, minute: int) -> Callable[[datetime], bool]:
    return lambda wall: wall.minute == minute and wall.hour == hour


def _watched(url: str, schedule: str, timezone: str, is_due: Callable[[datetime], bool] | None) -> Watched:
    return Watched(CronEntry(url=url, schedule=schedule, timezone=timezone), is_due)


ENTRIES = (
    _watched("/hourly", "every 1 hours synchronized", "UTC", lambda wall: wall.minute == 0),
    _watched("/skipped", "every day 02:30", "America/New_York", _daily(2, 30)),
    _watched("/twice", "every day 01:30", "America/New_York", _daily(1, 30)),
    _watched("/half-an-hour", "every day 01:45", "Australia/Lord_Howe", _daily(1, 45)),
    _watched(
        "/weekdays", "30 9 * * mon-fri", "Europe/Berlin",
        lambda wall: wall.minute == 30 and wall.hour == 9 and wall.weekday() < 5,
    ),
    _watched("/nightly", "*/30 2 * * *", "Europe/Berlin", lambda wall: wall.minute % 30 == 0 and wall.hour == 2),
    _watched(
        "/office", "every 2 hours from 10:00 to 14:00", "America/New_York",
        lambda wall: wall.minute == 0 and wall.hour in {10, 12, 14},
    ),
    _watched(
        "/monthly", "1 of month 04:00", "Europe/London",
        lambda wall: wall.minute == 0 and wall.hour == 4 and wall.day == 1,
    ),
    _watched(
        "/third-monday", "3rd mon of month 23:59", "Asia/Tokyo",
        lambda wall: wall.minute == 59 and wall.hour == 23 and wall.weekday() == 0 and 15 <= wall.day <= 21,
    ),
    _watched(INTERVAL_URL, "every 7 hours", "UTC", None),
)  # fmt: skip


def times_of(watched: Watched, begin: int, end: int) -> Iterator[int]:
    """Give the times of an entry, in seconds since the epoch, by looking at the clock every minute."""
    assert watched.is_due is not None
    zone = ZoneInfo(watched.entry.timezone)
    for at in range(-(-begin // _MINUTE) * _MINUTE, end, _MINUTE):
        if watched.is_due(datetime.fromtimestamp(at, zone)):
            yield at
