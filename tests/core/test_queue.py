"""share_slots: every queue gets its turn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware.core.queue import share_slots

waiting = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=2), st.integers(0, 50), max_size=8)


@pytest.mark.parametrize(
    ("waiting_counts", "slots", "shares"),
    [
        ({}, 5, {}),
        ({"a": 3}, 0, {"a": 0}),
        ({"a": 100}, 10, {"a": 10}),
        ({"a": 100, "b": 1}, 10, {"a": 9, "b": 1}),
        ({"a": 100, "b": 100, "c": 100}, 10, {"a": 4, "b": 3, "c": 3}),
        ({"a": 0, "b": 2, "c": 0}, 3, {"a": 0, "b": 2, "c": 0}),
        ({"a": 5, "b": 5}, 1, {"a": 1, "b": 0}),
        ({"a": 1, "b": 100, "c": 2}, 8, {"a": 1, "b": 5, "c": 2}),
    ],
)
def test_slots_are_shared_in_turn(waiting_counts: dict[str, int], slots: int, shares: dict[str, int]) -> None:
    assert share_slots(waiting_counts, slots) == shares


@given(waiting, st.integers(0, 200))
def test_all_slots_are_used_and_no_queue_gets_more_than_waits(waiting_counts: dict[str, int], slots: int) -> None:
    shares = share_slots(waiting_counts, slots)
    assert shares.keys() == waiting_counts.keys()
    assert all(0 <= shares[name] <= count for name, count in waiting_counts.items())
    assert sum(shares.values()) == min(slots, sum(waiting_counts.values()))


@given(waiting, st.integers(0, 200))
def test_a_queue_that_wants_more_has_at_most_one_less_than_any_other(
    waiting_counts: dict[str, int], slots: int
) -> None:
    shares = share_slots(waiting_counts, slots)
    most = max(shares.values(), default=0)
    assert all(shares[name] >= most - 1 for name, count in waiting_counts.items() if shares[name] < count)


@given(waiting, st.integers(0, 200))
def test_the_sharing_is_that_of_dealing_one_slot_at_a_time(waiting_counts: dict[str, int], slots: int) -> None:
    dealt = dict.fromkeys(waiting_counts, 0)
    while slots_left := slots - sum(dealt.values()):
        hungry = [name for name, count in waiting_counts.items() if dealt[name] < count]
        if not hungry:
            break
        for name in hungry[:slots_left]:
            dealt[name] += 1
    assert share_slots(waiting_counts, slots) == dealt
