"""Crontab expressions, `*/5 9-17 * * mon-fri`, read by cronsim: `pip install "hookware[cron]"`.

cronsim says which times of the wall clock match; what a change of that clock means is decided here, as Debian's cron
does.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from hookware.core.wall_clock import instant_or_jump, is_representable, next_instant, wall_at
from hookware.errors import InvalidScheduleError

try:
    from cronsim import CronSim, CronSimError
except ImportError as error:
    raise ImportError('crontab expressions need cronsim: pip install "hookware[cron]"', name="cronsim") from error

_MOST_CHARACTERS = 1000
_SEE = "write it as in '*/5 * * * *' or '30 9 * * mon-fri'"


@dataclass(frozen=True, slots=True, kw_only=True)
class CronExpression:
    """Five fields: minute, hour, day of the month, month, day of the week, with names, ranges, steps and lists.

    If the day of the month and the day of the week both do not begin with `*`, a day matches that matches one of them.

    When the clock is set forward or back, as in Debian's cron:

    * Fields of minute and hour that both do not begin with `*` name a time of day. A time that the clock skips comes
      due at the instant of the change; one that it shows twice comes due once, the first time.
    * All others come due whenever the clock shows a time that matches: not at all if it is skipped, twice if it is
      shown twice, so that `*/5 * * * *` stays evenly spaced.

    Raises:
        InvalidScheduleError: the text is no such expression, or never comes due.
    """

    text: str
    zone: tzinfo = UTC

    def __post_init__(self) -> None:
        if len(self.text) > _MOST_CHARACTERS or len(self.text.split()) != 5:
            raise InvalidScheduleError(
                f"the crontab expression {self.text[:100]!r} is refused: it must have five fields; {_SEE}"
            )
        try:
            found = self._next_wall(datetime(2000, 1, 1))  # noqa: DTZ001 - what the wall shows
        except (CronSimError, ValueError) as error:
            raise InvalidScheduleError(f"the crontab expression {self.text!r} is refused: {error}; {_SEE}") from None
        if found is None:
            raise InvalidScheduleError(f"the crontab expression {self.text!r} is refused: no day matches; {_SEE}")

    @property
    def counts_from_end(self) -> bool:
        """False."""
        return False

    @property
    def names_times(self) -> bool:
        """Say whether it is for certain times of day, and not for every so many minutes or hours."""
        minute, hour, *_ = self.text.split()
        return not minute.startswith("*") and not hour.startswith("*")

    def next_after(self, us: int) -> int | None:
        """Give the first time after `us`, in microseconds since the epoch; None if there is none any more."""
        if not self.names_times:
            return next_instant(us, self.zone, self._next_wall)
        wall: datetime | None = wall_at(us, self.zone) if is_representable(us) else None
        while wall is not None and (wall := self._next_wall(wall)) is not None:
            if (found_us := instant_or_jump(wall, self.zone)) > us:
                return found_us
        return None

    def _next_wall(self, wall: datetime) -> datetime | None:
        try:
            return next(CronSim(self.text, wall), None)
        except OverflowError:  # after the year 9999
            return None
