"""Which tasks breed: those that double, not those that go on."""

from hookware.core.growth import Growth


def warned_at(copies: int, generations: int, *, seconds_each: float = 0.001) -> int | None:
    """Let tasks add copies of themselves, one generation after the other; the depth at which it is noticed."""
    growth, now, count = Growth(), 0.0, 1
    for depth in range(generations):
        for _ in range(count):
            now += seconds_each
            growth.ran(depth, now)
            if growth.added(depth, copies, now):
                return depth
        count *= copies
    return None


def test_a_worker_that_adds_itself_back_for_ever_is_none_of_them() -> None:
    assert warned_at(1, 200_000) is None


def test_tasks_that_double_are_noticed_when_they_are_a_thousand() -> None:
    assert warned_at(2, 15) == 10
    assert warned_at(3, 12) == 10


def test_doubling_too_slowly_to_matter_is_not() -> None:
    assert warned_at(2, 12, seconds_each=1) is None


def test_fanning_out_near_the_beginning_is_not() -> None:
    growth = Growth()
    for _ in range(100):
        growth.ran(3, 0.0)
        assert growth.added(3, 100, 0.0) is False


def test_a_worker_that_goes_on_with_parts_that_run_too_is_not() -> None:
    growth = Growth()
    for turn in range(5000):
        now = turn / 1000
        for _ in range(6):  # itself, and the five parts of the turn before
            growth.ran(10 + turn, now)
        assert growth.added(10 + turn, 6, now) is False


def test_a_minute_later_the_count_begins_anew() -> None:
    growth = Growth()
    assert growth.added(10, 999, 0.0) is False
    assert growth.added(10, 999, 60.0) is False
    assert growth.added(10, 1, 119.0) is True
