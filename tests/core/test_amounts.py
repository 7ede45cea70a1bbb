"""Numbers as people read them."""

import pytest

from hookware.core.amounts import Count, counted, many, moment, span


@pytest.mark.parametrize(
    ("us", "text"),
    [(-5, "0 s"), (0, "0 s"), (400_000, "0.4 s"), (1234, "0.00123 s"), (1_000_000, "1 s"), (2_500_000, "2.5 s"),
     (12_900_000, "12 s"), (200_000_000, "3 min 20 s"), (180_000_000, "3 min"), (7_500_000_000, "2 h 5 min"),
     (7_201_000_000, "2 h"), (187_200_000_000, "2 d 4 h")],
)  # fmt: skip
def test_spans_of_time(us: int, text: str) -> None:
    assert span(us) == text


def test_a_count_that_was_stopped_says_so() -> None:
    assert [str(counted(n, 1000)) for n in (0, 999, 1000, 1001)] == ["0", "999", "1,000", "more than 1,000"]
    assert Count(3).plus(Count(1000, more=True)) == Count(1003, more=True)


def test_nouns_agree_with_their_counts() -> None:
    assert [many(n, "task") for n in (0, 1, 2)] == ["0 tasks", "1 task", "2 tasks"]
    assert many(Count(1, more=True), "process", "processes") == "more than 1 processes"


def test_moments_are_in_utc_and_never_raise() -> None:
    assert moment(1_700_000_000_000_000) == "2023-11-14 22:13:20 UTC"
    assert (moment(2**63 - 1), moment(-(2**63))) == ("the end of time", "the beginning of time")
