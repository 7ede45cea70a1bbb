"""Task: what it shows of itself, and the draft it becomes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware.core.params import decode_params
from hookware.taskqueue import Task, TaskTooLargeError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
params = st.dictionaries(texts, texts | st.lists(texts, min_size=2, max_size=3), max_size=4)


def test_a_task_without_url_goes_to_its_queues_path() -> None:
    assert Task()._draft("mail").url == "/_ah/queue/mail"
    assert Task(method="GET", params={"a": 1})._draft("mail").url == "/_ah/queue/mail?a=1"
    assert Task(url="/w")._draft("mail").url == "/w"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PUT", "get"])
def test_params_of_other_methods_are_the_query(method: str) -> None:
    draft = Task(url="/w", method=method, params={"a": ["x y", "ü"]})._draft("q")
    assert (draft.method, draft.url, draft.body, draft.headers) == (method.upper(), "/w?a=x+y&a=%C3%BC", b"", ())


def test_a_put_has_both_a_payload_and_params() -> None:
    draft = Task("text", url="/w", method="PUT", params={"a": 1})._draft("q")
    assert (draft.url, draft.body) == ("/w?a=1", b"text")
    assert draft.headers == (("content-type", "text/plain; charset=utf-8"),)


def test_headers_only_hookware_sets_are_shown_but_not_sent() -> None:
    headers = {"X-AppEngine-TaskName": "evil", "X_HOOKWARE_Fence": "1", "x-cloudtasks-a": "b", "X-Foo": ["a", "b"]}
    task = Task(url="/w", headers=headers)
    assert task.headers == {name.lower(): value for name, value in headers.items()}
    assert task._draft("q").headers == (("x-foo", "a"), ("x-foo", "b"))


def test_headers_are_given_as_a_copy() -> None:
    values = ["a", "b"]
    task = Task(url="/w", headers={"X-Foo": values})
    values.append("c")
    shown = task.headers
    shown["x-bar"] = "d"
    value = shown["x-foo"]
    assert isinstance(value, list)
    value.append("e")
    assert task.headers == {"x-foo": ["a", "b"]}


def test_the_url_is_stored_in_its_canonical_spelling() -> None:
    task = Task(url="/%77orker/ü", method="GET", params={"q": "~"})
    assert task.url == "/worker/%C3%BC?q=~"
    assert not task.on_queue_url


def test_an_eta_is_kept_to_the_microsecond() -> None:
    eta = datetime(2009, 6, 1, 12, 30, 15, 123456, tzinfo=UTC)
    task = Task(eta=eta)
    draft = task._draft("q")
    assert (task.eta, draft.eta_us, draft.countdown_us) == (eta, 1_243_859_415_123_456, 0)
    assert task.eta_posix == eta.timestamp()


def test_a_countdown_is_left_to_the_databases_clock() -> None:
    before = datetime.now(UTC)
    task = Task(countdown="90.5")
    draft = task._draft("q")
    assert (draft.eta_us, draft.countdown_us) == (None, 90_500_000)
    assert before - timedelta(milliseconds=1) <= task.eta - timedelta(seconds=90.5) <= datetime.now(UTC)
    assert task.eta.tzinfo is UTC


def test_without_eta_and_countdown_a_task_is_due_now() -> None:
    draft = Task()._draft("q")
    assert (draft.eta_us, draft.countdown_us) == (None, 0)


def test_the_size_may_reach_the_limit_but_not_pass_it() -> None:
    overhead = len("POST") + len("/w")
    assert Task(b"a" * (1_048_576 - overhead), url="/w").size == 1_048_576
    with pytest.raises(TaskTooLargeError, match="1048577 bytes of 1048576"):
        Task(b"a" * (1_048_577 - overhead), url="/w")
    with pytest.raises(TaskTooLargeError):
        Task(url="/w", headers={"x-a": ["b" * 1000] * 1100})


def test_a_payload_is_not_in_the_repr() -> None:
    shown = repr(Task("secret", url="/w", headers={"authorization": "secret"}, name="n"))
    assert "secret" not in shown
    assert "'n'" in shown


@pytest.mark.slow
@given(params, st.sampled_from(["POST", "PUT", "GET", "HEAD", "DELETE"]))
def test_the_handler_gets_the_params_that_were_given(given_params: dict[str, str | list[str]], method: str) -> None:
    task = Task(url="/w", method=method, params=given_params)
    draft = task._draft("q")
    headers = dict(draft.headers)
    query = draft.url.partition("?")[2].encode("ascii")
    fields = decode_params(draft.method, headers.get("content-type"), query, draft.body)
    assert fields == {name: [v] if isinstance(v, str) else v for name, v in given_params.items()}
    assert task.extract_params() == given_params


def test_params_of_a_pull_task_are_its_payload() -> None:
    assert Task(method="PULL", params={"a": [1, 2], "b": ""}).extract_params() == {"a": ["1", "2"], "b": ""}


def test_what_is_no_form_has_no_params_to_extract() -> None:
    assert Task(url="/w").extract_params() == {}
    for payload in ("no form", b"\xff=1", b"a=%ff"):
        with pytest.raises(ValueError, match=r"bad query field|utf-8"):
            Task(payload, url="/w").extract_params()


def test_a_fresh_task_was_neither_enqueued_nor_deleted() -> None:
    task = Task(url="/w", target="other", name="n")
    assert (task.was_enqueued, task.was_deleted, task.retry_count, task.id, task.queue_name) == (
        False, False, 0, None, None,
    )  # fmt: skip
    assert (task.target, task.name, task.tag, task.retry_options) == ("other", "n", None, None)
