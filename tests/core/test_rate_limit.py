"""The token bucket: never more than the rate and a bucketful, never less than the rate, whatever the clock does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware.core.rate_limit import TOKEN, Bucket, available, full, ready_us, refill, take

SECOND_US = 1_000_000
START_US = 1_243_842_000 * SECOND_US

rates = st.sampled_from([1 / 86_400, 2000 / 86_400, 0.1, 1 / 3, 0.5, 1.0, 5.0, 33.3, 500.0]) | st.floats(1e-4, 1e3)
sizes = st.integers(1, 100)
waits_us = st.integers(0, 10 * SECOND_US)


def give_all(bucket: Bucket, rate: float, size: int, now_us: int) -> tuple[Bucket, int]:
    """Take what there is."""
    count = available(bucket, rate, size, now_us)
    return take(bucket, count, rate, size, now_us), count


@given(rates, sizes, st.lists(st.tuples(waits_us, st.integers(0, 200)), max_size=60))
def test_no_window_gives_more_than_the_rate_and_a_bucketful(
    rate: float, size: int, steps: list[tuple[int, int]]
) -> None:
    bucket, now_us, given_at = full(size, START_US), START_US, []
    for wait_us, wanted in steps:
        now_us += wait_us
        count = min(wanted, available(bucket, rate, size, now_us))
        bucket = take(bucket, count, rate, size, now_us)
        given_at.append((now_us, count))
    for first, (begin_us, _) in enumerate(given_at):
        total = 0
        for end_us, count in given_at[first:]:
            total += count
            assert total <= rate * (end_us - begin_us) / SECOND_US + size + 1e-6


@given(rates, sizes, st.lists(waits_us, max_size=60))
def test_a_bucket_that_is_always_wanted_gives_what_the_rate_says(rate: float, size: int, waits: list[int]) -> None:
    bucket, _ = give_all(full(size, START_US), rate, size, START_US)
    now_us, total = START_US, 0
    for wait_us in waits:
        now_us += min(wait_us, int((size - 1) / rate * SECOND_US))  # so that it never overflows
        bucket, count = give_all(bucket, rate, size, now_us)
        total += count
    assert total > rate * (now_us - START_US) / SECOND_US - 1 - 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("rate", [2000 / 86_400, 1 / 3, 5.0, 499.9])
def test_a_hundred_thousand_takes_do_not_drift(rate: float) -> None:
    bucket, now_us, size = take(full(5, START_US), 5, rate, 5, START_US), START_US, 5
    for _ in range(100_000):
        wait_us = ready_us(bucket, rate, size, now_us)
        assert wait_us is not None
        now_us += wait_us
        bucket = take(bucket, 1, rate, size, now_us)
    assert abs(rate * (now_us - START_US) / SECOND_US - 100_000) < 0.1 + rate * 100_000 / SECOND_US


@given(rates, sizes, st.lists(st.integers(-10 * SECOND_US, 10 * SECOND_US), max_size=40))
def test_a_clock_that_goes_back_makes_no_tokens(rate: float, size: int, steps: list[int]) -> None:
    bucket, now_us, latest_us, total = full(size, START_US), START_US, START_US, 0
    for step_us in steps:
        latest_us = max(latest_us, now_us + step_us)
        now_us = max(now_us + step_us, latest_us - 60 * SECOND_US)
        bucket, count = give_all(bucket, rate, size, now_us)
        total += count
    assert total <= rate * (latest_us - START_US) / SECOND_US + size + 1e-6


def test_a_clock_that_goes_back_takes_nothing_either() -> None:
    bucket = take(full(5, START_US), 3, 1.0, 5, START_US)
    assert available(bucket, 1.0, 5, START_US - 60 * SECOND_US) == 2
    emptied = take(bucket, 2, 1.0, 5, START_US - 60 * SECOND_US)
    assert available(emptied, 1.0, 5, START_US) == 0
    assert available(emptied, 1.0, 5, START_US + SECOND_US) == 1


@given(rates, sizes, st.integers(61 * SECOND_US, 400 * 86_400 * SECOND_US))
def test_a_clock_that_was_far_ahead_does_not_stop_the_queue(rate: float, size: int, ahead_us: int) -> None:
    now_us = START_US
    bucket, _ = give_all(full(size, now_us + ahead_us), rate, size, now_us + ahead_us)
    for _ in range(3):
        wait_us = ready_us(bucket, rate, size, now_us)
        assert wait_us is not None
        assert wait_us <= SECOND_US / rate + 1
        now_us += wait_us
        bucket = take(bucket, 1, rate, size, now_us)


@given(st.lists(st.tuples(st.just(0.0) | rates, st.integers(-3, 100), waits_us), max_size=40))
def test_rate_and_size_may_change_at_any_time(steps: list[tuple[float, int, int]]) -> None:
    bucket, now_us = full(5, START_US), START_US
    for rate, size, wait_us in steps:
        now_us += wait_us
        count = available(bucket, rate, size, now_us)
        assert 0 <= count <= max(1, size)
        assert count == 0 or rate > 0
        bucket = take(bucket, count, rate, size, now_us)
        assert 0 <= bucket.tokens <= max(1, size) * TOKEN


@given(rates, sizes, st.integers(0, 100 * TOKEN), st.integers(-SECOND_US, 100_000 * SECOND_US))
def test_ready_is_the_first_moment_with_a_token(rate: float, size: int, tokens: int, wait_us: int) -> None:
    bucket, now_us = Bucket(tokens=tokens, refilled_us=START_US), START_US + wait_us
    wait = ready_us(bucket, rate, size, now_us)
    assert wait is not None
    assert available(bucket, rate, size, now_us + wait) >= 1
    assert wait == 0 or available(bucket, rate, size, now_us + wait - 1) == 0


def test_a_rate_of_zero_pauses_and_keeps_what_is_there() -> None:
    bucket = full(5, START_US)
    later_us = START_US + 3600 * SECOND_US
    assert available(bucket, 0.0, 5, later_us) == 0
    assert ready_us(bucket, 0.0, 5, later_us) is None
    assert refill(bucket, 0.0, 5, later_us).tokens == 5 * TOKEN


def test_more_than_is_there_is_refused() -> None:
    with pytest.raises(ValueError, match="6 tokens are taken where 5 are available"):
        take(full(5, START_US), 6, 1.0, 5, START_US)
    with pytest.raises(ValueError, match="-1 tokens"):
        take(full(5, START_US), -1, 1.0, 5, START_US)


@pytest.mark.parametrize("size", [1, 0, -1])
def test_the_smallest_bucket_holds_one_token(size: int) -> None:
    bucket = full(size, START_US)
    assert available(bucket, 1.0, size, START_US) == 1
    emptied = take(bucket, 1, 1.0, size, START_US)
    assert available(emptied, 1.0, size, START_US + SECOND_US - 1) == 0
    assert available(emptied, 1.0, size, START_US + 3600 * SECOND_US) == 1
