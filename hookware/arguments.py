"""What the arguments of a Task mean: one rule of App Engine's client a function, and its error.

Each function takes what the user gave and returns what is stored; none of them keeps anything.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, TypedDict

from hookware.core.headers import check_header, is_forbidden
from hookware.core.params import FORM_TYPE, encode_params
from hookware.core.retry import MOST_RETRY, RetryOptions
from hookware.core.task import PULL
from hookware.core.url import canonical_url
from hookware.errors import (
    InvalidDispatchDeadlineError,
    InvalidEtaError,
    InvalidQueueNameError,
    InvalidTagError,
    InvalidTaskError,
    InvalidTaskNameError,
    InvalidTaskRetryOptionsError,
    InvalidUrlError,
)
from hookware.keys import OnConflict

MAX_QUEUE_NAME_LENGTH: Final = 100
MAX_TASK_NAME_LENGTH: Final = 500
MAX_TAG_LENGTH: Final = 500
MIN_DISPATCH_DEADLINE: Final = timedelta(seconds=15)
MAX_DISPATCH_DEADLINE: Final = timedelta(hours=24)
MAX_COUNTDOWN: Final = timedelta(days=30)

_canonical_path: Final = lru_cache(256)(canonical_url)
_METHODS: Final = ("POST", "GET", "HEAD", "PUT", "DELETE", PULL)
_TASK_NAME: Final = re.compile(rf"[a-zA-Z0-9_-]{{1,{MAX_TASK_NAME_LENGTH}}}")
_QUEUE_NAME: Final = re.compile(rf"[a-zA-Z0-9-]{{1,{MAX_QUEUE_NAME_LENGTH}}}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

HeaderValue = str | Iterable[str]
HeaderArgument = Mapping[str, HeaderValue] | Iterable[tuple[str, HeaderValue]]


class TaskArguments(TypedDict, total=False):
    """The arguments of a `Task`, besides its payload; `taskqueue.add` takes them too."""

    countdown: float | str | None
    eta: datetime | None
    headers: HeaderArgument | None
    method: str
    name: str | None
    params: Mapping[str, object] | None
    retry_options: "TaskRetryOptions | None"
    tag: str | None
    target: object
    url: str
    dispatch_deadline_usec: int | None
    dispatch_deadline: float | timedelta | None
    priority: int
    key: str | None
    on_conflict: OnConflict | None
    debounce: float | None
    fair_key: str | None
    limit_key: str | None
    _size_check: bool


class TaskRetryOptions(RetryOptions):
    """How often, how long and how soon a failing task is tried again. A task's options replace its queue's whole.

    Args:
        min_backoff_seconds: the wait after the first failure; 0.1 if not given.
        max_backoff_seconds: the longest wait; an hour if not given.
        max_doublings: how often the wait doubles before it grows evenly; 16 if not given.
        task_retry_limit: how many more attempts follow a failed first one; unlimited if not given.
        task_age_limit: seconds since the first attempt, rounded up; unlimited if not given.
            With both limits given, a task is given up when both are exceeded.

    Raises:
        InvalidTaskRetryOptionsError: a number is negative, not finite or over 1e9, or the longest wait is
            shorter than the shortest.
    """

    __slots__ = ()

    def __init__(
        self,
        *,
        min_backoff_seconds: float | None = None,
        max_backoff_seconds: float | None = None,
        max_doublings: int | None = None,
        task_retry_limit: int | None = None,
        task_age_limit: float | None = None,
    ) -> None:
        _check_retry("min_backoff_seconds", min_backoff_seconds)
        _check_retry("max_backoff_seconds", max_backoff_seconds)
        _check_retry("max_doublings", max_doublings)
        _check_retry("task_retry_limit", task_retry_limit)
        _check_retry("task_age_limit", task_age_limit)
        if min_backoff_seconds is not None and max_backoff_seconds is not None:
            _check_order(min_backoff_seconds, max_backoff_seconds)
        super().__init__(
            min_backoff_seconds=min_backoff_seconds,
            max_backoff_seconds=max_backoff_seconds,
            max_doublings=max_doublings,
            task_retry_limit=task_retry_limit,
            task_age_limit=None if task_age_limit is None else math.ceil(task_age_limit),
        )


def _check_retry(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, int | float) or not 0 <= value <= MOST_RETRY:
        raise InvalidTaskRetryOptionsError(f"{name} must be a number from 0 to 1e9, got {_shown(value)}")


def _check_order(shortest: float, longest: float) -> None:
    if longest < shortest:
        raise InvalidTaskRetryOptionsError(
            f"max_backoff_seconds ({longest}) must not be less than min_backoff_seconds ({shortest})"
        )


def checked_retry(options: TaskRetryOptions | None) -> TaskRetryOptions | None:
    """Give a task's retry options; refuse what has not been checked."""
    if options is not None and not isinstance(options, TaskRetryOptions):
        raise TypeError(f"retry_options must be TaskRetryOptions, got {type(options).__name__}")
    return options


def checked_name(name: str | None) -> str | None:
    """Give a task's name; '' and None both mean that it has none."""
    if name and not _matches(_TASK_NAME, name):
        raise InvalidTaskNameError(
            f"the task name {_shown(name)} is refused: 1 to {MAX_TASK_NAME_LENGTH} of the characters a-z A-Z 0-9 _ - "
            "are allowed; encode other values, or leave the name out"
        )
    return name


def checked_queue_name(name: str) -> str:
    """Give a queue's name."""
    if not _matches(_QUEUE_NAME, name):
        raise InvalidQueueNameError(
            f"the queue name {_shown(name)} is refused: 1 to {MAX_QUEUE_NAME_LENGTH} of the characters a-z A-Z 0-9 - "
            "are allowed"
        )
    return name


def checked_method(method: str) -> str:
    """Give a task's method in upper case."""
    upper = method.upper()
    if upper not in _METHODS:
        raise InvalidTaskError(f"the method {_shown(method)} is refused: use one of {', '.join(_METHODS)}")
    return upper


def path_and_query(url: str) -> tuple[str, str]:
    """Give the canonical path and query of a URL, both empty if it is: the task then goes to its queue's path."""
    if not isinstance(url, str):
        raise TypeError(f"url must be text, got {type(url).__name__}; leave it out for the queue's own path")
    try:
        if "?" not in url:  # there are few of these, which come again and again
            return (_canonical_path(url) if url else ""), ""
        path, _, query = canonical_url(url).partition("?")
    except ValueError as error:
        raise InvalidUrlError(str(error)) from error
    return path, query


def joined_url(path: str, query: str) -> str:
    """Give a URL of a path that may be empty and the query that params made."""
    if not query:
        return path
    try:
        return path + canonical_url(f"/?{query}")[1:]
    except ValueError as error:
        raise InvalidUrlError(str(error)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Where payload and params have gone: the body as the user sees it, its type, and the query."""

    payload: str | bytes | None = None
    content_type: str | None = None
    query: str = ""


def content_of(method: str, payload: str | bytes | None, params: Mapping[str, object] | None, query: str) -> Content:
    """Give the content of a task: POST carries its params in the body, PULL as payload, the others in the query."""
    encoded = _encoded(params)
    if query and params:
        raise InvalidTaskError("the url has a query string and params are given too: use only one of them")
    if method == "POST" and query:
        raise InvalidTaskError("a POST task's url may not have a query string: use params=, or method='GET' or 'PUT'")
    if params and payload and method in {"POST", PULL}:
        raise InvalidTaskError(f"payload and params are both given for a {method} task: use only one of them")
    if payload and method in {"GET", "HEAD", "DELETE"}:
        raise InvalidTaskError(f"a {method} task may not have a payload: use params=, or method='POST' or 'PUT'")
    if params and method == "POST":
        return Content(payload=encoded, content_type=FORM_TYPE)
    if params and method == PULL:
        payload, encoded = encoded, ""
    if payload is None and method == PULL:
        raise InvalidTaskError("a pull task must have a payload or params")
    content_type = "text/plain; charset=utf-8" if payload and isinstance(payload, str) else None
    return Content(payload=_bytes(payload), content_type=content_type, query=encoded or query)


def checked_headers(headers: HeaderArgument | None) -> dict[str, str | list[str]]:
    """Give a task's headers by lower-case name; the last of two spellings wins, a list repeats the header."""
    checked: dict[str, str | list[str]] = {}
    for name, value in _header_items(headers):
        values = [value] if isinstance(value, str) else list(_each_value(name, value))
        if is_forbidden(name):
            raise InvalidTaskError(
                f"a task may not set the header {name!r}: it says how to read, route or trust a request; leave it out"
            )
        try:
            for one in values:
                check_header(name, one)
        except ValueError as error:
            raise InvalidTaskError(str(error)) from error
        checked[name.lower()] = value if isinstance(value, str) else values
    return checked


def _header_items(headers: HeaderArgument | None) -> Iterable[tuple[str, HeaderValue]]:
    try:
        items = dict(headers or ()).items()
    except (TypeError, ValueError):
        raise TypeError(f"headers must map names to values, or be such pairs, got {_shown(headers)}") from None
    for name, value in items:
        if not isinstance(name, str):
            raise InvalidTaskError(f"a header's name must be text, got {_shown(name)}: convert it first")
        yield name, value


def check_mode(method: str, tag: str | None, **only_push: object) -> None:
    """Refuse what does not go with a pull task (`only_push`), and a tag on any other."""
    if method != PULL:
        if tag is not None:
            raise InvalidTaskError(f"a tag is only for pull tasks, and this one is {method}: leave it out")
        return
    given = [name for name, value in only_push.items() if value]
    if given:
        raise InvalidTaskError(f"a pull task may not have {' or '.join(given)}: leave it out")
    if tag is not None:
        check_tag(tag)


def check_tag(tag: object) -> None:
    """Refuse a tag that a database would not take, or that is too long."""
    try:
        length = len(tag.encode()) if isinstance(tag, str) and "\0" not in tag else None
    except UnicodeEncodeError:
        length = None
    if length is None:
        raise InvalidTagError(f"the tag {_shown(tag)} is refused: it must be text without NUL that is valid Unicode")
    if length > MAX_TAG_LENGTH:
        raise InvalidTagError(f"the tag has {length} bytes of {MAX_TAG_LENGTH}: shorten it")


def due(eta: datetime | None, countdown: float | str | None, now_us: int) -> tuple[int | None, int]:
    """Give a task's ETA, if one is given, and its countdown, in microseconds; a naive ETA is local time."""
    if eta is not None and countdown is not None:
        raise InvalidTaskError("eta and countdown are both given: use only one of them")
    eta_us = None if eta is None else _since_epoch_us(eta)
    countdown_us = 0 if countdown is None else _countdown_us(countdown)
    at_us = now_us + countdown_us if eta_us is None else eta_us
    if not 0 <= at_us <= now_us + MAX_COUNTDOWN // _MICROSECOND:
        given = f"countdown {_shown(countdown)}" if eta is None else f"eta {eta}"
        raise InvalidEtaError(f"the {given} is refused: it must lie after 1970 and at most 30 days ahead")
    return eta_us, countdown_us


def as_datetime(at_us: int) -> datetime:
    """Give a time as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=at_us)


def deadline_us(usec: int | None, seconds: float | timedelta | None) -> int | None:
    """Give the dispatch deadline in microseconds; None: the configured one."""
    if usec is not None and seconds is not None:
        raise InvalidTaskError("dispatch_deadline and dispatch_deadline_usec are both given: use only one of them")
    if seconds is not None:
        return _deadline_of(seconds)
    if usec is None:
        return None
    if not isinstance(usec, int):
        raise TypeError(f"dispatch_deadline_usec must be a whole number, got {type(usec).__name__}")
    if not MIN_DISPATCH_DEADLINE // _MICROSECOND <= usec <= MAX_DISPATCH_DEADLINE // _MICROSECOND:
        raise InvalidDispatchDeadlineError(
            f"dispatch_deadline_usec must be between 15 seconds and 24 hours, got {_shown(usec)} microseconds; "
            "dispatch_deadline= takes shorter ones, in seconds"
        )
    return usec


def _deadline_of(deadline: float | timedelta) -> int:
    seconds = deadline.total_seconds() if isinstance(deadline, timedelta) else deadline
    if not isinstance(seconds, int | float):
        raise TypeError(f"dispatch_deadline must be seconds or a timedelta, got {type(seconds).__name__}")
    if not 1e-6 <= seconds <= MAX_DISPATCH_DEADLINE.total_seconds():
        raise InvalidDispatchDeadlineError(
            f"dispatch_deadline must be more than 0 and at most 24 hours, got {_shown(seconds)} seconds"
        )
    return round(seconds * 1_000_000)


def _since_epoch_us(eta: datetime) -> int:
    if not isinstance(eta, datetime):
        raise InvalidTaskError(f"eta must be a datetime.datetime, got {type(eta).__name__}")
    try:
        aware = eta.astimezone() if eta.utcoffset() is None else eta
    except (OverflowError, ValueError, OSError) as error:
        raise InvalidEtaError(f"the eta {eta} is refused: it has no meaning as local time; make it aware") from error
    return (aware - _EPOCH) // _MICROSECOND


def _countdown_us(countdown: float | str) -> int:
    try:
        return round(float(countdown) * 1_000_000)
    except OverflowError:
        raise InvalidTaskError(f"the countdown {_shown(countdown)} is out of range: give seconds") from None
    except ValueError:
        raise InvalidTaskError(f"the countdown must be a number of seconds, got {_shown(countdown)}") from None


def _encoded(params: Mapping[str, object] | None) -> str:
    if params is None:
        return ""
    if not isinstance(params, Mapping):
        raise TypeError(f"params must be a mapping of names to values, got {type(params).__name__}")
    try:
        return encode_params(params)
    except UnicodeEncodeError as error:
        raise InvalidTaskError(f"params hold text that is not valid Unicode: {error.reason}") from None


def _bytes(payload: str | bytes | None) -> bytes | None:
    if payload is None or isinstance(payload, bytes):
        return payload
    if not isinstance(payload, str):
        raise InvalidTaskError(f"the payload must be text or bytes, got {type(payload).__name__}: encode it first")
    try:
        return payload.encode()
    except UnicodeEncodeError as error:
        raise InvalidTaskError(f"the payload is text that is not valid Unicode: {error.reason}") from None


def _each_value(name: str, value: object) -> Iterable[str]:
    values = list(value) if isinstance(value, Iterable) and not isinstance(value, bytes) else [value]
    for one in values:
        if not isinstance(one, str):
            raise InvalidTaskError(
                f"the header {name!r} must be text or several texts, got {type(one).__name__}: convert it first"
            )
        yield one


def _matches(rule: re.Pattern[str], name: object) -> bool:
    return isinstance(name, str) and rule.fullmatch(name) is not None


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) > 10**30:
        return "a number of more than 30 digits"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
