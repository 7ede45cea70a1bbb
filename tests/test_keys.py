"""What may be said of a task's priority and keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware import Task
from hookware.core.task import NO_KEYS, Keys
from hookware.errors import InvalidTaskError


def test_most_tasks_have_none() -> None:
    assert Task(url="/w").keys is NO_KEYS


def test_what_is_given_is_kept() -> None:
    task = Task(url="/w", priority=-5, key="k", on_conflict="replace", fair_key="f", limit_key="l")
    assert task.keys == Keys(priority=-5, dedup_key="k", on_conflict="replace", fair_key="f", limit_key="l")


def test_a_debounce_is_a_countdown_after_which_the_last_one_runs() -> None:
    task = Task(url="/w", key="k", debounce=5)
    assert task.keys.on_conflict == "replace"
    assert task._draft("q").countdown_us == 5_000_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"priority": 101}, "priority must be a whole number from -100 to 100, got 101"),
        ({"priority": True}, "got True"),
        ({"priority": 1.0}, "got 1.0"),
        ({"key": ""}, "key must be a text of 1 to 500 characters"),
        ({"key": "x" * 501}, "use a hash of it"),
        ({"fair_key": 7}, "fair_key must be a text"),
        ({"limit_key": "a\0b"}, "limit_key must be a text"),
        ({"limit_key": "\ud800"}, "limit_key must be a text"),
        ({"on_conflict": "skip"}, "give key=, too"),
        ({"debounce": 5}, "give key=, too"),
        ({"key": "k", "on_conflict": "ignore"}, "on_conflict='ignore': use one of 'skip', 'replace', 'raise'"),
        ({"key": "k", "debounce": 0}, "debounce must be a number of seconds above 0"),
        ({"key": "k", "debounce": 10**9}, "(30 days), got 1000000000"),
        ({"key": "k", "debounce": "5"}, "got '5'"),
        ({"key": "k", "debounce": 5, "on_conflict": "skip"}, "it cannot go with on_conflict='skip'"),
        ({"key": "k", "debounce": 5, "countdown": 1}, "leave countdown= and eta= out"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_the_rule(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidTaskError) as caught:
        Task(url="/w", **arguments)  # type: ignore[arg-type]  # wrong on purpose
    assert said in str(caught.value)


def test_a_pull_task_has_none() -> None:
    with pytest.raises(InvalidTaskError, match="a pull task has no priority"):
        Task("x", method="PULL", priority=1)


@given(st.text(min_size=1, max_size=500))
def test_any_text_that_can_be_stored_is_a_key(text: str) -> None:
    storable = "\0" not in text and text.isprintable()
    try:
        assert Task(url="/w", key=text).keys.dedup_key == text
    except InvalidTaskError:
        assert not storable
