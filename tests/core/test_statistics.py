"""Sums of minutes may be added up in any order, and percentiles are right to within a bucket."""

from hypothesis import given
from hypothesis import strategies as st

from hookware.core.statistics import BOUNDS_US, FIELDS, Sums, Times, to_minutes, together

times = st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.integers(0, 10**10), st.integers(0, 10**10)), max_size=30)


def sums_of(ended: list[tuple[int, int, int]]) -> Sums:
    sums = Sums()
    for outcome, run_us, wait_us in ended:
        sums.ended(outcome, run_us, wait_us)  # type: ignore[arg-type]  # one of the literals
    return sums


@given(times, times)
def test_two_processes_gather_what_one_would(one: list[tuple[int, int, int]], two: list[tuple[int, int, int]]) -> None:
    added = sums_of(one)
    added.add(sums_of(two))
    assert added.numbers == sums_of(one + two).numbers == sums_of(two + one).numbers


@given(times)
def test_a_row_comes_back_as_it_was_written(ended: list[tuple[int, int, int]]) -> None:
    minutes = to_minutes(60, sums_of(ended).numbers)
    assert minutes.numbers == sums_of(ended).numbers
    assert len(minutes.numbers) == len(FIELDS)
    assert minutes.ended_count == minutes.run.count == minutes.wait.count == len(ended)
    assert together(60, [minutes]) == minutes


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_percentile_lies_in_the_bucket_of_the_exact_one(run_us: list[int], part: float) -> None:
    run = to_minutes(0, sums_of([(0, us, 0) for us in run_us]).numbers).run
    exact = sorted(run_us)[max(0, -(-int(part * len(run_us) * 10**6) // 10**6) - 1)]
    told = run.percentile_us(part)
    assert told is not None
    assert told <= max(run_us) == run.most_us
    lower = max([0, *(bound for bound in BOUNDS_US if bound < exact)])
    assert told >= lower
    assert told <= min([bound for bound in BOUNDS_US if bound >= exact], default=max(run_us))


def test_where_nothing_ended_there_is_no_mean_and_no_percentile() -> None:
    assert (Times().mean_us, Times().percentile_us(0.5), Times().count) == (None, None, 0)
