"""From the times that a clock on the wall shows to instants, through all changes of its zone's offset.

Instants are whole microseconds since the epoch; wall times are datetimes without a zone.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WALL_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - what the wall shows has no zone
_FIRST_US = (datetime(1, 1, 8, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST_US = (datetime(9999, 12, 24, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LARGEST_STEP_US = 26 * 3_600_000_000
"""No clock was ever set by more than a day; the rest is reserve."""

NextWall = Callable[[datetime], datetime | None]
"""Gives the first wall time of a schedule after another wall time."""


def is_representable(us: int) -> bool:
    """Say whether an instant, and every wall clock at it, lies in the years that dates can have."""
    return _FIRST_US <= us <= _LAST_US


def clamped(us: int) -> int:
    """Give the first instant that has a date, for one before it."""
    return max(us, _FIRST_US)


def wall_at(us: int, zone: tzinfo) -> datetime:
    """Give what the clock shows at an instant."""
    return (_EPOCH + us * _MICROSECOND).astimezone(zone).replace(tzinfo=None, fold=0)


def first_instant(wall: datetime, zone: tzinfo) -> int | None:
    """Give the first instant at which the clock shows `wall`; None: it never does, being set forward past it."""
    us = _early(wall, zone)
    return us if wall_at(us, zone) == wall else None


def instant_from(wall: datetime, zone: tzinfo) -> int:
    """Give the first instant of `wall`, or of the first whole minute after it that the clock shows at all."""
    while (us := first_instant(wall, zone)) is None:
        wall += timedelta(minutes=1)
    return us


def instant_or_jump(wall: datetime, zone: tzinfo) -> int:
    """Give the first instant of `wall`, or the instant at which the clock is set forward past it."""
    us = _early(wall, zone)
    if wall_at(us, zone) == wall:
        return us
    change = _change(us - _LARGEST_STEP_US, us, zone)
    return us if change is None else change


def next_instant(after_us: int, zone: tzinfo, next_wall: NextWall) -> int | None:
    """Give the first instant after `after_us` at which the clock shows a time of `next_wall`.

    A time that the clock skips gives no instant, one that it shows twice gives two. None: there is none any more.
    """
    at_us = clamped(after_us)
    if not is_representable(at_us):
        return None
    wall = wall_at(at_us, zone)
    while True:
        offset_us = _offset_us(at_us, zone)
        found = next_wall(wall)
        if found is None:
            return None
        found_us = (found - _WALL_EPOCH) // _MICROSECOND - offset_us
        if not is_representable(found_us):
            return None
        near_us = min(found_us, at_us + _LARGEST_STEP_US)
        if (change_us := _change(at_us, near_us, zone)) is not None:
            at_us = change_us
            wall = wall_at(at_us, zone) - _MICROSECOND  # what is shown at the very change counts, too
        elif found_us == near_us:
            return found_us
        else:
            # Until a day before the next match the wall cannot show it, however the clock is set in between.
            at_us = max(near_us, found_us - _LARGEST_STEP_US)
            wall = wall_at(at_us, zone)


def _early(wall: datetime, zone: tzinfo) -> int:
    return (wall.replace(tzinfo=zone, fold=0) - _EPOCH) // _MICROSECOND


def _offset_us(us: int, zone: tzinfo) -> int:
    return (wall_at(us, zone) - _WALL_EPOCH) // _MICROSECOND - us


def _change(after_us: int, until_us: int, zone: tzinfo) -> int | None:
    """Give the first instant in (after, until] whose offset is not that of `after_us`; None if the ends agree."""
    before = _offset_us(after_us, zone)
    if _offset_us(until_us, zone) == before:
        return None
    while until_us - after_us > 1:
        middle = (after_us + until_us) // 2
        if _offset_us(middle, zone) == before:
            after_us = middle
        else:
            until_us = middle
    return until_us
