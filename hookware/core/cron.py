"""Cron entries: what a cron.yaml says, once it is parsed, and which of the times that have passed is made up for.

Source: `croninfo` of the App Engine SDK.
"""

import re
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final

from hookware.core.retry import RetryOptions
from hookware.core.schedule import Schedule
from hookware.core.url import canonical_url
from hookware.core.yaml_values import (
    Path,
    SettingError,
    age_seconds,
    count,
    fields_of,
    items_of,
    matched,
    required,
    seconds,
    shown,
)

_URL: Final = re.compile(r"/.*")
_DESCRIPTION: Final = re.compile(r".{0,499}")
_TARGET: Final = re.compile(r"((?!-)[a-z\d-]{1,100}[.:])?(?!-)[a-z\d-]{1,100}", re.ASCII)
_MOST_DEADLINE_SECONDS: Final = 86_400
_DEFAULT_RETRY_LIMIT: Final = 5
MAX_NAME_LENGTH: Final = 500
_ENTRY_KEYS: Final = (
    *("url", "schedule", "timezone", "description", "target", "retry_parameters", "attempt_deadline"),
)
_RETRY_KEYS: Final = (
    *("job_retry_limit", "job_age_limit", "min_backoff_seconds", "max_backoff_seconds", "max_doublings"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CronEntry:
    """One entry of a cron.yaml.

    Attributes:
        url: where the task goes, by GET.
        schedule: when it comes due, in English or as a crontab expression.
        timezone: whose clocks the schedule is for.
        description: what people are told.
        target: App Engine's version or module; without effect.
        retry: how a run that failed is tried again; None: it is not. Without a retry limit, five times.
        attempt_deadline_seconds: how long a run may take; None: the default.
    """

    url: str
    schedule: str
    timezone: str = "UTC"
    description: str = ""
    target: str | None = None
    retry: RetryOptions | None = None
    attempt_deadline_seconds: float | None = None

    @property
    def name(self) -> str:
        """What tells entries apart: a new schedule makes it another entry, a new description does not."""
        name = f"{self.url} {self.schedule} {self.timezone}"
        if len(name) <= MAX_NAME_LENGTH:
            return name
        digest = blake2b(name.encode("utf-8", "replace"), digest_size=16).hexdigest()
        return f"{name[: MAX_NAME_LENGTH - len(digest) - 1]} {digest}"

    @property
    def run_retry(self) -> RetryOptions | None:
        """How a run that failed is tried again: a limit that is not given is App Engine's. None: it is not."""
        if self.retry is None or self.retry.task_retry_limit is not None:
            return self.retry
        return replace(self.retry, task_retry_limit=_DEFAULT_RETRY_LIMIT)

    def problem(self) -> str | None:
        """Say what is wrong with it, apart from its schedule and time zone; None: nothing."""
        seconds = self.attempt_deadline_seconds
        if not isinstance(self.url, str):
            return f"url must be text, got {shown(self.url)}: write a path of this app, '/report'"
        try:
            canonical_url(self.url)
        except ValueError as error:
            return str(error)
        if self.retry is not None and not isinstance(self.retry, RetryOptions):
            return f"retry must be TaskRetryOptions or None, got {shown(self.retry)}: write TaskRetryOptions(...)"
        if seconds is not None and not _is_deadline(seconds):
            return f"attempt_deadline_seconds {shown(seconds)} is refused: it must be more than 0, up to 86400"
        return None


def cron_entries(value: object) -> tuple[CronEntry, ...]:
    """Translate a parsed cron.yaml; whether its schedules and time zones can be read is for the caller to check.

    Raises:
        SettingError: a value breaks its rule.
    """
    fields = fields_of(value, ("cron", "application"), ())
    return tuple(_entry(each, path) for path, each in items_of(fields.get("cron"), ("cron",)))


def _entry(value: object, path: Path) -> CronEntry:
    fields = fields_of(value, _ENTRY_KEYS, path)
    retry, deadline, target = (fields.get(key) for key in ("retry_parameters", "attempt_deadline", "target"))
    description_says = "at most 499 characters in one line are allowed"
    target_says = "write a module, or version.module, in lower case"
    return CronEntry(
        url=_url(required(fields, "url", path), (*path, "url")),
        schedule=_text(required(fields, "schedule", path), (*path, "schedule")),
        timezone=_text(fields.get("timezone", "UTC"), (*path, "timezone")),
        description=matched(fields.get("description", ""), _DESCRIPTION, description_says, (*path, "description")),
        target=None if target is None else matched(target, _TARGET, target_says, (*path, "target")),
        retry=None if retry is None else _retry(retry, (*path, "retry_parameters")),
        attempt_deadline_seconds=None if deadline is None else _deadline(deadline, (*path, "attempt_deadline")),
    )


def _url(value: object, path: Path) -> str:
    url = matched(value, _URL, "it must begin with '/'", path)
    try:
        canonical_url(url)
    except ValueError as error:
        raise SettingError(path, str(error)) from None
    return url


def _text(value: object, path: Path) -> str:
    if not isinstance(value, str):
        raise SettingError(path, f"{path[-1]} must be text, got {shown(value)}: put it in quotes")
    return value


def _retry(value: object, path: Path) -> RetryOptions:
    fields = fields_of(value, _RETRY_KEYS, path)
    limit, age, doublings = (fields.get(key) for key in ("job_retry_limit", "job_age_limit", "max_doublings"))
    shortest, longest = (fields.get(key) for key in ("min_backoff_seconds", "max_backoff_seconds"))
    return RetryOptions(
        task_retry_limit=None if limit is None else count(limit, (*path, "job_retry_limit")),
        task_age_limit=None if age is None else age_seconds(age, (*path, "job_age_limit"), least=0),
        min_backoff_seconds=None if shortest is None else seconds(shortest, (*path, "min_backoff_seconds")),
        max_backoff_seconds=None if longest is None else seconds(longest, (*path, "max_backoff_seconds")),
        max_doublings=None if doublings is None else count(doublings, (*path, "max_doublings")),
    )


def _deadline(value: object, path: Path) -> float:
    text = value.strip() if isinstance(value, str) else ""
    try:
        found = float(text.removesuffix("s")) if text.endswith("s") else 0.0
    except ValueError:
        found = 0.0
    if not _is_deadline(found):
        raise SettingError(
            path, f"attempt_deadline {shown(value)} is refused: write seconds, more than 0s and up to 86400s, as in 30s"
        )
    return found


def _is_deadline(seconds: object) -> bool:
    return isinstance(seconds, int | float) and 1e-6 <= seconds <= _MOST_DEADLINE_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """What is to be done about one entry now.

    Attributes:
        fire_us: the time for which it runs now; None: it does not.
        next_us: the next time to be stored; None: it never comes due again. Where a schedule counts from the end of
            a run, that end moves it: `schedule.next_after(end)`.
    """

    fire_us: int | None
    next_us: int | None


def firing(schedule: Schedule, next_us: int | None, now_us: int, grace_us: int) -> Firing:
    """Decide whether an entry runs now: for the latest time that has passed, if that is no older than the grace.

    Times before it are not made up for. A stored time that the schedule does not know, having been changed, only
    says from when on to look.

    Args:
        schedule: when the entry comes due.
        next_us: the stored next time; None: there is none.
        now_us: the time now.
        grace_us: how old a time may be that is made up for.
    """
    if next_us is None or next_us > now_us:
        return Firing(fire_us=None, next_us=next_us)
    latest_us, later_us = (_latest_from_end if schedule.counts_from_end else _latest)(schedule, next_us, now_us)
    is_due = latest_us is not None and now_us - latest_us <= grace_us
    return Firing(fire_us=latest_us if is_due else None, next_us=later_us)


def sooner(schedule: Schedule, next_us: int, last_us: int | None, now_us: int, grace_us: int) -> int | None:
    """Give the time that comes before a stored next one; None: none does.

    There is one where the stored one was set by a clock that was ahead. What was fired then does not come again; but
    a clock that was ahead by more than `grace_us` does not silence the entry for so long: then it may.
    """
    is_fired = last_us is not None and now_us < last_us <= now_us + grace_us
    first_us = schedule.next_after(last_us if last_us is not None and is_fired else now_us)
    return first_us if first_us is not None and first_us < next_us else None


def _latest(schedule: Schedule, next_us: int, now_us: int) -> tuple[int | None, int | None]:
    """Give the last time from the stored one to now, and the first one after now."""
    low_us, high_us = next_us - 1, now_us
    first_us = schedule.next_after(low_us)
    if not _has_passed(first_us, now_us):
        return None, first_us
    # Halving finds the last instant after which a time still comes by now: a year of minutes takes 45 steps.
    while high_us - low_us > 1:
        middle_us = (low_us + high_us) // 2
        if _has_passed(schedule.next_after(middle_us), now_us):
            low_us = middle_us
        else:
            high_us = middle_us
    return schedule.next_after(low_us), schedule.next_after(now_us)


def _has_passed(at_us: int | None, now_us: int) -> bool:
    return at_us is not None and at_us <= now_us


def _latest_from_end(schedule: Schedule, next_us: int, now_us: int) -> tuple[int | None, int | None]:
    """Go on from the stored time by the interval, as if each run had ended at once."""
    after_us = schedule.next_after(next_us)
    if after_us is None or after_us > now_us:
        return next_us, after_us
    following_us = schedule.next_after(after_us)
    if following_us is None:
        return after_us, None
    period_us = following_us - after_us
    latest_us = after_us + (now_us - after_us) // period_us * period_us
    return latest_us, latest_us + period_us
