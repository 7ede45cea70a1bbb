"""The filter grammar: what is written is read again, and what cannot be read says where and what to write."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware.core.filter import TERMS, Filter, FilterError, Range, parse

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
some_texts = st.lists(texts, max_size=3, unique=True).map(tuple)
ranges = (
    st.none()
    | st.builds(lambda one, two: Range(min(one, two), max(one, two)), st.integers(0, 99), st.integers(0, 99))
    | st.builds(lambda n: Range(n, None), st.integers(0, 99))
    | st.builds(lambda n: Range(None, n), st.integers(-1, 99))
)
spans = st.none() | st.integers(0, 10**12)
filters = st.builds(
    Filter,
    states=st.lists(st.sampled_from(["due", "scheduled", "retrying", "dead"]), unique=True, max_size=3).map(tuple),
    queue_names=some_texts, urls=some_texts, reasons=some_texts, errors=some_texts, names=some_texts, keys=some_texts,
    fair_keys=some_texts, limit_keys=some_texts, tags=some_texts,
    statuses=st.lists(st.sampled_from([0, 200, 404, 503]), unique=True, max_size=3).map(tuple),
    ids=st.lists(st.integers(0, 2**63 - 1), unique=True, max_size=3).map(tuple),
    attempts=ranges, crashes=ranges, older_us=spans, newer_us=spans,
)  # fmt: skip


@given(filters)
def test_what_a_filter_writes_is_read_as_the_same_filter(chosen: Filter) -> None:
    assert parse(str(chosen)) == chosen


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_with_a_place_inside_it(text: str) -> None:
    with suppress(FilterError):
        assert isinstance(parse(text), Filter)
        return
    with pytest.raises(FilterError) as refused:
        parse(text)
    assert 0 <= refused.value.position <= len(text)


def test_the_terms_of_the_example() -> None:
    chosen = parse('state:dead queue:mail url:/worker* reason:retries,permanent error:"timed out" older:2h attempts:>3')
    assert chosen == Filter(
        states=("dead",), queue_names=("mail",), urls=("/worker*",), reasons=("retries", "permanent"),
        errors=("timed out",), older_us=7_200_000_000, attempts=Range(4, None),
    )  # fmt: skip


def test_errors_may_be_given_more_than_once_and_all_have_to_be_there() -> None:
    assert parse("error:one error:two").errors == ("one", "two")


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("timeout", 0, 'write key:value, such as error:"timeout"'),
        ("state:dead timeout", 11, "write key:value"),
        ("stat:dead", 0, "the keys are state, queue"),
        ("state:ded", 6, "write one of due, scheduled"),
        ("state:dead,ded", 11, "write one of due"),
        ("older:2", 6, "write a number and s, min, h or d, such as older:2h"),
        ("older:2h older:3h", 15, "older is given twice"),
        ("older:1h,2h", 6, "older is given twice"),
        ("queue:a queue:b", 14, "alternatives are written queue:one,other"),
        ("attempts:many", 9, "write 3, >3, <=3 or 3..5"),
        ("attempts:>3..5", 9, "write 3, >3"),
        ("status:9", 7, "from 100 to 599, or none"),
        ("id:x", 3, "write a whole number"),
        ("id:9999999999999999999", 3, "write a whole number"),
        ('error:"no end', 6, 'add a "'),
        ("error:", 6, "a value is missing"),
        ("error:a,", 8, "a value is missing"),
        ('error:"a"b', 9, "a blank is missing"),
        ("key:a\0b", 4, "NUL"),
        ("key:" + ",".join(map(str, range(101))), 297, "100 values"),
        (" " * 2001, 2000, "2000 characters"),
    ],
)
def test_what_cannot_be_read_says_where_and_what_to_write(text: str, position: int, said: str) -> None:
    with pytest.raises(FilterError) as refused:
        parse(text)
    assert said in str(refused.value)
    assert refused.value.position == position
    assert str(refused.value).endswith(f"(at character {position + 1})")


@pytest.mark.parametrize("key", TERMS)
def test_the_example_of_each_term_can_be_read(key: str) -> None:
    assert parse(f"{key}:{TERMS[key].example}") != Filter()


@pytest.mark.parametrize(
    ("word", "bounds"),
    [("3", Range(3, 3)), ("=3", Range(3, 3)), (">3", Range(4, None)), (">=3", Range(3, None)), ("<3", Range(None, 2)),
     ("<=3", Range(None, 3)), ("3..5", Range(3, 5)), ("<0", Range(None, -1))],
)  # fmt: skip
def test_numbers_have_bounds(word: str, bounds: Range) -> None:
    assert parse(f"attempts:{word}").attempts == bounds


@pytest.mark.parametrize(
    ("word", "us"),
    [("2s", 2_000_000), ("1.5s", 1_500_000), ("3m", 180_000_000), ("3min", 180_000_000), ("1d", 86_400_000_000)],
)
def test_spans_have_units(word: str, us: int) -> None:
    assert parse(f"newer:{word}").newer_us == us
