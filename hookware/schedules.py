"""Which language a schedule is written in, and in which time zone: `schedule("every day 09:00", "Europe/Berlin")`."""

import re
from datetime import UTC, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from hookware.core.cron_text import ScheduleTextError
from hookware.core.schedule import Schedule, parse_schedule
from hookware.errors import InvalidScheduleError

_ENGLISH = re.compile(r"\s*([A-Za-z]|[0-9]+(st|nd|rd|th)|[0-9][0-9,\s]*of)")
_OF_THIS_HOST = {"localtime"}
"""Zones that are another one on another host."""

_CRONTAB = re.compile(r"\s*[0-9*]")


def schedule(text: str, timezone: str = "UTC") -> Schedule:
    """Read a schedule, in App Engine's English or as a crontab expression.

    Args:
        text: `every 5 minutes`, `1st,third mon of month 09:00`, or five fields such as `*/5 * * * *`, for which
            the extra `cron` must be installed.
        timezone: whose clocks the times of day are for, as `Europe/Berlin`; upper and lower case are the same.

    Raises:
        InvalidScheduleError: the text is neither, or the time zone is not known.
        ImportError: it is a crontab expression, and the extra is not installed.
    """
    if not isinstance(text, str):
        raise InvalidScheduleError(f"a schedule must be text, got {type(text).__name__}: write 'every 5 minutes'")
    zone = _zone(timezone)
    if _ENGLISH.match(text):
        try:
            return parse_schedule(text, zone)
        except ScheduleTextError as error:
            raise InvalidScheduleError(str(error)) from None
    if not _CRONTAB.match(text):
        raise InvalidScheduleError(
            f"the schedule {text[:100]!r} is neither English, as 'every 5 minutes' or 'every day 09:00', "
            "nor a crontab expression of five fields, as '*/5 * * * *': write it as one of them"
        )
    from hookware.crontab import CronExpression

    return CronExpression(text=text, zone=zone)


@lru_cache(maxsize=256)
def _zone(name: str) -> tzinfo:
    """Give a time zone by its name, in any case, as App Engine does; UTC is there even where no time zones are."""
    folded = str(name).casefold()  # what is no text is no time zone either
    if folded == "utc":
        return UTC
    names = {each.casefold(): each for each in available_timezones() - _OF_THIS_HOST}
    if folded in names:
        return ZoneInfo(names[folded])
    if not names:
        raise InvalidScheduleError(
            f"the time zone {name!r} is not known, because this system has no time zones: pip install tzdata"
        )
    raise InvalidScheduleError(
        f"the time zone {name!r} is not known: use a name such as 'UTC', 'Europe/Berlin' or 'America/New_York'; "
        "a newer list comes with pip install tzdata"
    )
