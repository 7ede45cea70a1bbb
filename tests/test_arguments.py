"""The rules for a task's arguments that App Engine's vectors do not reach."""

import string
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hookware import errors
from hookware.arguments import TaskRetryOptions, checked_name, checked_queue_name, deadline_us, due
from hookware.taskqueue import Queue, Task

NOW_US = 1_243_814_400_000_000
DAY_US = 86_400_000_000

names = st.text(max_size=4) | st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=8)


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.slow
@given(names)
@example("a\n")
def test_a_task_name_has_only_letters_digits_underscores_and_dashes(name: str) -> None:
    allowed = all(c.isascii() and (c.isalnum() or c in "_-") for c in name)
    if allowed:
        assert checked_name(name) == name
    else:
        with pytest.raises(errors.InvalidTaskNameError):
            checked_name(name)


@given(names)
@example("a\n")
def test_a_queue_name_has_only_letters_digits_and_dashes(name: str) -> None:
    if name and all(c.isascii() and (c.isalnum() or c == "-") for c in name):
        assert checked_queue_name(name) == name
    else:
        with pytest.raises(errors.InvalidQueueNameError):
            checked_queue_name(name)


def test_a_name_that_is_too_long_is_refused_and_cut_in_the_message() -> None:
    with pytest.raises(errors.InvalidTaskNameError) as caught:
        checked_name("a" * 501)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("url", ["//evil/w", "worker", "/a/../w", "/a%2fb", "/w\r\n", "/a b", "/%ff", "/w?a=\x00"])
def test_a_url_that_is_no_plain_path_is_refused(url: str) -> None:
    with pytest.raises(errors.InvalidUrlError, match="is refused"):
        Task(url=url, method="GET")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_a_query_comes_from_the_url_or_from_params(method: str) -> None:
    with pytest.raises(errors.InvalidTaskError, match="only one of them"):
        Task(url="/w?a=1", method=method, params={"b": 2})


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_query_made_of_params_has_the_limit_of_a_url(method: str) -> None:
    with pytest.raises(errors.InvalidUrlError, match="send the data in the payload"):
        Task(url="/w", method=method, params={"a": "x" * 65_536})
    with pytest.raises(errors.InvalidUrlError, match="send the data in the payload"):
        Task(method=method, params={"a": "x" * 65_536})


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil"}, {"content-length": "1"}, {"Transfer_Encoding": "chunked"}, {"X-Forwarded-For": "1.1.1.1"},
        {"x-http-method-override": "GET"}, {"a b": "c"}, {"a": "b\r\nc: d"}, {"a": ["ok", "b\x00"]}, {"": "a"},
        {"a": 1}, {"a": b"b"}, {"a": [b"b"]}, {"a": None},
    ],
)  # fmt: skip
def test_headers_that_a_request_cannot_carry_are_refused(headers: Mapping[str, Any]) -> None:
    with pytest.raises(errors.InvalidTaskError, match="header"):
        Task(url="/w", headers=headers)


def test_headers_of_a_user_are_allowed() -> None:
    headers = {"Authorization": "Bearer x", "Cookie": "a=b", "Content-Type": "x/y", "X-Foo": ()}
    assert Task(url="/w", headers=headers).headers == {
        "authorization": "Bearer x", "cookie": "a=b", "content-type": "x/y", "x-foo": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    "countdown",
    [float("nan"), float("inf"), -float("inf"), "nan", "inf", "1e400", "", 10**400],
    ids=lambda c: repr(c)[:20],
)
def test_a_countdown_is_a_finite_number(countdown: float | str) -> None:
    with pytest.raises(errors.InvalidTaskError) as caught:
        Task(countdown=countdown)
    assert type(caught.value) is errors.InvalidTaskError
    assert len(str(caught.value)) < 200


def test_a_countdown_may_be_negative_and_fractional() -> None:
    assert due(None, -1.5, NOW_US) == (None, -1_500_000)
    assert due(None, "0.000001", NOW_US) == (None, 1)


@pytest.mark.parametrize(
    ("countdown", "allowed"),
    [(30 * 86_400, True), (30 * 86_400 + 0.000001, False), (1e300, False), (-NOW_US / 1e6, True), (-1e300, False)],
)
def test_a_countdown_ends_within_30_days_and_after_1970(countdown: float, allowed: bool) -> None:
    if allowed:
        due(None, countdown, NOW_US)
    else:
        with pytest.raises(errors.InvalidEtaError):
            due(None, countdown, NOW_US)


@pytest.mark.parametrize(
    ("eta", "eta_us"),
    [
        (datetime(2009, 6, 1, tzinfo=UTC), NOW_US),
        (datetime(2009, 6, 1, 2, tzinfo=timezone(timedelta(hours=2))), NOW_US),
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(2009, 7, 1, tzinfo=UTC), NOW_US + 30 * DAY_US),
    ],
)
def test_an_aware_eta_has_its_zone(eta: datetime, eta_us: int) -> None:
    assert due(eta, None, NOW_US) == (eta_us, 0)


@pytest.mark.parametrize(
    "eta",
    [
        datetime(2009, 7, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime.min,  # noqa: DTZ901 - naive is local time
        datetime.max,  # noqa: DTZ901 - naive is local time
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
    ],
)
def test_an_eta_far_away_is_refused(eta: datetime) -> None:
    with pytest.raises(errors.InvalidEtaError):
        due(eta, None, NOW_US)


@pytest.mark.usefixtures("new_york")
def test_a_naive_eta_is_local_time() -> None:
    winter_us = 1_231_200_000_000_000  # 2009-01-06 00:00 UTC
    assert due(datetime.fromisoformat("2009-01-05T19:00"), None, winter_us) == (winter_us, 0)
    assert due(datetime.fromisoformat("2009-05-31T20:00"), None, NOW_US) == (NOW_US, 0)


@pytest.mark.usefixtures("new_york")
def test_a_naive_eta_in_the_repeated_hour_has_its_fold() -> None:
    first_us = 1_257_053_400_000_000  # 2009-11-01 05:30 UTC, 01:30 daylight time
    repeated = datetime.fromisoformat("2009-11-01T01:30")
    assert due(repeated, None, first_us) == (first_us, 0)
    assert due(repeated.replace(fold=1), None, first_us) == (first_us + 3_600_000_000, 0)


@pytest.mark.parametrize(
    ("seconds", "microseconds"),
    [(30, 30_000_000), (0.5, 500_000), (1e-6, 1), (timedelta(minutes=2), 120_000_000), (86_400, DAY_US)],
)
def test_a_dispatch_deadline_is_seconds_or_a_timedelta(seconds: float | timedelta, microseconds: int) -> None:
    assert deadline_us(None, seconds) == microseconds
    assert Task(dispatch_deadline=seconds).dispatch_deadline_usec == microseconds


@pytest.mark.parametrize(
    "seconds", [0, -1, 86_400.1, float("nan"), float("inf"), timedelta(0), timedelta(days=2), 1e-9]
)
def test_a_dispatch_deadline_out_of_range_is_refused(seconds: float | timedelta) -> None:
    with pytest.raises(errors.InvalidDispatchDeadlineError):
        Task(dispatch_deadline=seconds)


@pytest.mark.parametrize("usec", [-(10**400), 10**400])
def test_a_monstrous_deadline_is_refused_with_a_short_message(usec: int) -> None:
    with pytest.raises(errors.InvalidDispatchDeadlineError) as caught:
        Task(dispatch_deadline_usec=usec)
    assert len(str(caught.value)) < 200


def test_a_dispatch_deadline_is_given_once_and_as_a_number() -> None:
    with pytest.raises(errors.InvalidTaskError):
        Task(dispatch_deadline=30, dispatch_deadline_usec=30_000_000)
    with pytest.raises(TypeError):
        Task(dispatch_deadline="30")  # type: ignore[arg-type] # what the test is about


@pytest.mark.parametrize(
    "options",
    [
        {"min_backoff_seconds": 2, "max_backoff_seconds": 1}, {"min_backoff_seconds": float("nan")},
        {"max_backoff_seconds": float("inf")}, {"task_age_limit": float("inf")}, {"task_age_limit": -0.5},
        {"task_retry_limit": -1}, {"task_retry_limit": 10**5000}, {"max_doublings": 1e10},
        {"min_backoff_seconds": "1"},
    ],
    ids=lambda options: "a number too long to be written" if 10**5000 in options.values() else repr(options),
)  # fmt: skip
def test_retry_options_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidTaskRetryOptionsError) as caught:
        TaskRetryOptions(**options)
    assert len(str(caught.value)) < 200


def test_the_age_limit_is_rounded_up() -> None:
    assert TaskRetryOptions(task_age_limit=0.1).task_age_limit == 1
    assert TaskRetryOptions(task_age_limit=2).task_age_limit == 2


@pytest.mark.parametrize("arguments", [{"params": [("a", 1)]}, {"retry_options": {"task_retry_limit": 1}}])
def test_an_argument_of_another_type_is_a_type_error(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"got (list|dict)"):
        Task(url="/w", **arguments)


@pytest.mark.parametrize("arguments", [{"payload": "\ud800"}, {"params": {"a": "\udfff"}}, {"params": {"\ud800": 1}}])
def test_text_that_is_not_unicode_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidTaskError, match="not valid Unicode"):
        Task(url="/w", **arguments)


def test_a_tag_is_measured_in_bytes() -> None:
    assert Task(method="PULL", payload="x", tag="ü" * 250).tag == "ü" * 250
    with pytest.raises(errors.InvalidTagError, match="502 bytes of 500"):
        Task(method="PULL", payload="x", tag="ü" * 251)


@pytest.mark.parametrize(("tag", "said"), [("a\0b", r"'a\\x00b'"), ("\ud800", "ud800"), (5, "tag 5"), (b"t", "b't'")])
def test_a_tag_that_no_database_takes_is_refused(tag: Any, said: str) -> None:
    with pytest.raises(errors.InvalidTagError, match=f"{said}.*text without NUL"):
        Task(method="PULL", payload="x", tag=tag)


@pytest.mark.parametrize("tag", ["a\0b", "\ud800"])
def test_a_tag_that_no_database_takes_cannot_be_leased_by(tag: str) -> None:
    with pytest.raises(errors.InvalidTagError, match="text without NUL"):
        Queue("q").lease_tasks_by_tag(1, 1, tag)


@pytest.mark.parametrize("pairs", [list, tuple, iter, dict])
def test_headers_may_be_pairs_of_which_the_last_with_a_name_counts(pairs: Callable[[Any], Any]) -> None:
    given = [("X-A", "1"), ("x-b", ["2", "3"]), ("x-a", "4")]
    assert Task(url="/w", headers=pairs(given)).headers == {"x-a": "4", "x-b": ["2", "3"]}


@pytest.mark.parametrize("headers", [5, "x-a: 1", [("a", "b", "c")], ["abc"], [5], [([], "a")]])
def test_headers_that_are_no_pairs_are_a_type_error(headers: Any) -> None:
    with pytest.raises(TypeError, match="headers must map names to values"):
        Task(url="/w", headers=headers)


@pytest.mark.parametrize("name", [5, None, b"x"])
def test_the_name_of_a_header_is_text(name: Any) -> None:
    with pytest.raises(errors.InvalidTaskError, match="name must be text"):
        Task(url="/w", headers=[(name, "a")])
