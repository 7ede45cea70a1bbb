"""How many tasks of a queue may begin."""

from hypothesis import given
from hypothesis import strategies as st

from hookware.core.allowance import NO_LIMIT, NO_STATE, Allowance, QueueState, allowance, effective
from hookware.core.queue import Lane, QueueSettings, by_priority, lane_of
from hookware.core.rate_limit import TOKEN, Bucket

PLAIN = QueueSettings(name="q")
NOW_US = 1_000_000_000


def test_nothing_is_set_nothing_is_limited() -> None:
    assert allowance(PLAIN, NO_STATE, 99, NOW_US) == Allowance(NO_LIMIT)


def test_a_pause_lets_nothing_begin_whatever_else_is_set() -> None:
    assert allowance(QueueSettings(rate=9.0), QueueState(paused=True), 0, NOW_US) == Allowance(0)


def test_a_limit_leaves_what_is_left() -> None:
    settings = QueueSettings(max_concurrent_requests=3)
    assert [allowance(settings, NO_STATE, running, NOW_US).count for running in (0, 2, 3, 7)] == [3, 1, 0, 0]
    assert allowance(settings, NO_STATE, 3, NOW_US).ready_us is None


def test_a_full_bucket_at_first_and_a_time_when_it_is_empty() -> None:
    settings = QueueSettings(rate=0.5, bucket_size=2)
    first = allowance(settings, NO_STATE, 0, NOW_US)
    assert (first.count, first.bucket) == (2, Bucket(tokens=2 * TOKEN, refilled_us=NOW_US))
    left = first.left(2, settings, NOW_US)
    assert (left.count, left.ready_us) == (0, NOW_US + 2_000_000)
    assert left.bucket is not None
    later = allowance(settings, QueueState(bucket=left.bucket), 0, NOW_US + 2_000_000)
    assert later.count == 1


def test_what_waits_for_another_to_end_names_no_time_though_there_are_tokens() -> None:
    settings = QueueSettings(rate=5.0, max_concurrent_requests=1)
    assert allowance(settings, NO_STATE, 1, NOW_US).ready_us is None


def test_what_is_set_at_run_time_replaces_what_is_configured_field_by_field() -> None:
    settings = QueueSettings(name="q", rate=5.0, max_concurrent_requests=4)
    state = QueueState(overrides={"rate": None, "bucket_size": 9})
    assert effective(settings, state) == QueueSettings(name="q", bucket_size=9, max_concurrent_requests=4)


@given(st.from_regex(r"[A-Za-z0-9-]{1,20}", fullmatch=True), st.integers(-100, 100), st.booleans())
def test_a_lane_is_found_again_by_its_text(name: str, priority: int, keyed: bool) -> None:
    assert lane_of(str(Lane(name, priority, keyed))) == Lane(name, priority, keyed)


@given(st.text())
def test_any_text_is_some_lane(text: str) -> None:
    assert isinstance(lane_of(text), Lane)


def test_the_plain_lane_is_its_queues_name() -> None:
    assert str(Lane("q")) == "q"
    assert lane_of("q/1234") == Lane("q/1234")


@given(st.sampled_from("01239 x-").flatmap(lambda one: st.text("0123456789k-/q" + one, max_size=8)))
def test_two_texts_are_two_lanes(text: str) -> None:
    assert str(lane_of(text)) == text
    assert str(lane_of("q/" + text)) == "q/" + text


def test_where_the_limit_is_full_tokens_that_are_left_name_no_time() -> None:
    settings = QueueSettings(rate=5.0, bucket_size=5, max_concurrent_requests=2)
    allowed = allowance(settings, NO_STATE, 0, NOW_US)
    assert allowed.left(2, settings, NOW_US).ready_us is None
    assert allowed.left(1, settings, NOW_US).ready_us == NOW_US


def test_lanes_go_by_priority_the_plain_one_beside_the_one_with_keys() -> None:
    lanes = [Lane("q"), Lane("q", 5), Lane("q", -5), Lane("q", 0, True)]
    assert by_priority(lanes) == [[Lane("q", 5)], [Lane("q"), Lane("q", 0, True)], [Lane("q", -5)]]
