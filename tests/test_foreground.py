"""Foreground first: the laws of the rule, and what the layer tells it of requests."""

from collections.abc import Callable

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from hookware.config import Config
from hookware.foreground import (
    CALM_SECONDS,
    FELT_SECONDS,
    FRESH_SECONDS,
    GROWTH_SECONDS,
    HOLD_SECONDS,
    LEAST_PRESENCE_SECONDS,
    PATIENCE_SECONDS,
    PRESENCE_SECONDS,
    PROBE_SECONDS,
    SILENCE_HALF_LIFE_SECONDS,
    SILENCE_PART,
    WINDOW_SECONDS,
    Foreground,
    Rule,
)
from tests.asgi import request
from tests.samples import SteppedEnv
from tests.stage import Stage

Step = tuple[str, int, float]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["arrived", "answered", "began", "ended", "lagged"]),
        st.integers(0, 3),
        st.floats(0, 0.2) | st.floats(0, 8),
    ),
    max_size=60,
)
"""What happens, to whom, and how long after the step before; of a lag, how long it is."""


def play(rule: Rule, steps: list[Step]) -> float:
    """Let it all happen; give the time at the end."""
    now = 0.0
    for what, who, seconds in steps:
        now += seconds
        match what:
            case "arrived":
                rule.arrived(f"request {who}", now)
            case "answered":
                rule.answered(f"request {who}", now)
            case "began":
                rule.began(f"task {who}", now)
            case "ended":
                rule.ended(f"task {who}")
            case _:
                rule.lagged(seconds, now)
    return now


def lag(rule: Rule, seconds: float, *, begin: float = 0.0, for_seconds: float = WINDOW_SECONDS) -> float:
    """Probe for a while, with the same lag each time; give the time after the last probe."""
    now = begin
    while now < begin + for_seconds - 1e-9:
        now += PROBE_SECONDS + seconds
        rule.lagged(seconds, now)
    return now


# Laws.


@pytest.mark.slow
@given(STEPS, st.integers(1, 12), st.integers(0, 12))
def test_there_is_room_for_one_task_where_none_runs_and_never_for_more_than_there_are_slots(
    steps: list[Step], concurrency: int, running: int
) -> None:
    rule = Rule(concurrency)
    now = play(rule, steps)
    assert 1 <= rule.limit <= concurrency
    assert 0 <= rule.room(running, now) <= max(0, concurrency - running)
    assert rule.room(0, now) >= 1


@pytest.mark.slow
@given(STEPS, st.floats(0, 10), st.sampled_from([None, "task 0"]))
def test_whoever_waits_has_his_turn_soon_whatever_users_do(steps: list[Step], waited: float, task: object) -> None:
    rule = Rule(10)
    now = play(rule, steps)
    pause = rule.pause(now - waited, now, task)
    assert 0 <= pause <= max(HOLD_SECONDS, FRESH_SECONDS) + 1e-9  # rounding
    if waited >= HOLD_SECONDS:
        assert pause <= FRESH_SECONDS + 1e-9  # rounding
        assert rule.pause(now - waited, now + FRESH_SECONDS + 1e-6, task) == 0


@pytest.mark.slow
@given(STEPS, st.integers(1, 12), st.integers(0, 12))
def test_as_soon_as_users_are_gone_all_slots_are_the_tasks(steps: list[Step], concurrency: int, running: int) -> None:
    rule = Rule(concurrency)
    now = play(rule, steps) + PRESENCE_SECONDS
    assert rule.presence(now) == 0
    assert rule.room(running, now) == max(0, concurrency - running)
    assert rule.pause(now, now) == 0


@pytest.mark.slow
@given(STEPS)
def test_nothing_waits_where_every_request_is_answered_and_no_task_has_just_begun(steps: list[Step]) -> None:
    rule = Rule(10)
    now = play(rule, steps)
    for who in range(4):
        rule.answered(f"request {who}", now)
        rule.ended(f"task {who}")
    assert rule.pause(now, now) == 0


@pytest.mark.slow
@given(st.lists(st.floats(0.001, 20), min_size=1, max_size=60))
def test_users_are_gone_after_ten_times_their_longest_silence_of_late_and_within_bounds(gaps: list[float]) -> None:
    rule, now = Rule(10), 0.0
    rule.arrived("first", now)
    rule.answered("first", now)
    for number, gap in enumerate(gaps):
        now += gap
        rule.arrived(number, now)
        rule.answered(number, now)
    presence = rule.presence(now)
    assert LEAST_PRESENCE_SECONDS <= presence <= PRESENCE_SECONDS
    assert presence >= min(PRESENCE_SECONDS, gaps[-1] * SILENCE_PART) - 1e-9  # rounding
    if sum(gaps) <= SILENCE_HALF_LIFE_SECONDS * 3:
        assert presence == PRESENCE_SECONDS  # whoever has come of late is taken for one who thinks


# Requests.


def test_where_many_have_come_without_a_pause_users_are_gone_soon_after_the_last() -> None:
    rule = Rule(10)
    now = 0.0
    for number in range(3000):
        now = number * 0.01
        rule.arrived(number, now)
        rule.answered(number, now)
    assert rule.room(0, now + LEAST_PRESENCE_SECONDS - 0.01) == 1
    assert rule.room(0, now + LEAST_PRESENCE_SECONDS) == 10


def test_whoever_loads_a_page_now_and_then_is_there_for_as_long_as_ever() -> None:
    rule = Rule(10)
    now = 0.0
    for page in range(20):
        for number in range(30):  # all that a page consists of
            now = page * 4.0 + number * 0.01
            rule.arrived((page, number), now)
            rule.answered((page, number), now)
    assert rule.presence(now) == PRESENCE_SECONDS


def test_the_next_task_waits_for_the_answer() -> None:
    rule = Rule(10)
    rule.arrived("a", 1.0)
    rule.arrived("b", 1.01)
    assert rule.pause(1.01, 1.01) == pytest.approx(HOLD_SECONDS)
    rule.answered("a", 1.02)
    assert rule.unanswered(1.02) == 1
    assert rule.pause(1.01, 1.02) > 0
    rule.answered("b", 1.03)
    assert rule.pause(1.01, 1.03) == 0


def test_a_request_that_is_not_answered_for_long_counts_no_more() -> None:
    rule = Rule(10)
    rule.arrived("long poll", 0.0)
    rule.arrived("another", 0.5)
    assert rule.unanswered(PATIENCE_SECONDS - 0.01) == 2
    assert rule.unanswered(PATIENCE_SECONDS) == 1
    assert rule.unanswered(PATIENCE_SECONDS + 0.5) == 0


def test_while_users_are_there_one_task_is_claimed_at_a_time() -> None:
    rule = Rule(10)
    rule.arrived("a", 0.0)
    assert [rule.room(running, 1.0) for running in (0, 9, 10)] == [1, 1, 0]


def test_where_a_claim_locks_nobody_out_few_are_claimed_at_once_and_none_before_these_have_begun() -> None:
    rule = Rule(10, claimed_at_once=4)
    rule.arrived("a", 0.0)
    rule.answered("a", 0.0)
    assert [rule.room(running, 1.0) for running in (0, 8, 10)] == [4, 2, 0]
    for task in ("one", "two"):
        rule.claimed(task)
    assert rule.pause(1.0, 1.0) == pytest.approx(FRESH_SECONDS)
    assert rule.pause(1.0, 1.0, "one") == 0
    rule.began("one", 1.0)
    rule.ended("one")
    assert rule.pause(2.0, 2.0) > 0
    rule.ended("two")  # given back, without having begun
    assert rule.pause(2.0, 2.0) == 0


def test_a_task_that_has_just_begun_has_the_process_for_itself_until_it_ends_or_waits() -> None:
    rule = Rule(10)
    rule.arrived("a", 0.0)
    rule.answered("a", 0.0)
    rule.began("one", 1.0)
    assert rule.pause(1.0, 1.0) == pytest.approx(FRESH_SECONDS)
    assert rule.pause(1.0, 1.0, "one") == 0
    assert rule.pause(1.0, 1.0 + FRESH_SECONDS) == 0
    rule.began("two", 2.0)
    rule.ended("one")
    assert rule.pause(2.0, 2.0) > 0
    rule.ended("two")
    assert rule.pause(2.0, 2.0) == 0


# Lag.


def test_a_late_loop_halves_the_number_of_tasks_down_to_one() -> None:
    rule = Rule(10)
    rule.arrived("a", 0.0)
    now, limits = 0.0, []
    for _ in range(5):
        now = lag(rule, FELT_SECONDS * 2, begin=now)
        limits.append(rule.limit)
    assert limits == [5, 2, 1, 1, 1]
    assert [rule.room(running, now) for running in (0, 1)] == [1, 0]


def test_a_loop_on_time_gives_one_slot_back_every_second() -> None:
    rule = Rule(3)
    now = lag(rule, 1.0, for_seconds=4.0)
    assert rule.limit == 1
    assert lag(rule, CALM_SECONDS / 2, begin=now, for_seconds=GROWTH_SECONDS * 0.9) > now
    assert rule.limit == 1
    lag(rule, CALM_SECONDS / 2, begin=now, for_seconds=GROWTH_SECONDS * 4)
    assert rule.limit == 3


def test_a_lag_in_between_changes_nothing() -> None:
    rule = Rule(8)
    now = lag(rule, FELT_SECONDS * 2)
    assert rule.limit == 4
    lag(rule, (FELT_SECONDS + CALM_SECONDS) / 2, begin=now, for_seconds=10.0)
    assert rule.limit == 4


def test_one_late_moment_among_many_is_not_felt() -> None:
    rule = Rule(8)
    rule.lagged(0.05, 0.07)
    lag(rule, 0.0, begin=0.07)
    assert rule.limit == 8


def test_one_long_standstill_is_felt_at_once() -> None:
    rule = Rule(8)
    rule.lagged(WINDOW_SECONDS, 0.5)
    assert rule.limit == 4


def test_the_lag_is_worth_knowing_only_while_users_and_tasks_are_there() -> None:
    rule = Rule(8)
    rule.arrived("a", 0.0)
    assert not rule.matters(0.0)
    rule.claimed("one")
    assert rule.matters(0.0)
    assert not rule.matters(PRESENCE_SECONDS)
    rule.ended("one")
    assert not rule.matters(0.0)


# In a process.


class WatchedRule(Rule):
    """Counts the questions: each is one look of the probe."""

    def __init__(self, concurrency: int) -> None:
        super().__init__(concurrency)
        self.lags: list[float] = []

    def lagged(self, seconds: float, now: float) -> None:
        self.lags.append(seconds)
        super().lagged(seconds, now)


class LateEnv(SteppedEnv):
    """A host whose event loop wakes everybody up too late."""

    def __init__(self, late_seconds: float) -> None:
        super().__init__()
        self.late_seconds = late_seconds

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds + self.late_seconds)
        await anyio.lowlevel.checkpoint()


async def test_the_probe_measures_from_the_first_request_that_meets_a_task_until_users_are_gone() -> None:
    env = LateEnv(0.03)
    foreground = Foreground(env, Config(concurrency=4))
    rule = foreground._rule = WatchedRule(4)
    async with anyio.create_task_group() as loops:
        loops.start_soon(foreground.probe)
        await anyio.wait_all_tasks_blocked()
        foreground.claimed("one")
        await anyio.wait_all_tasks_blocked()
        assert rule.lags == []
        with foreground.request(send_nothing):
            pass
        with anyio.fail_after(10):
            await anyio.wait_all_tasks_blocked()
        assert rule.limit == 1
        assert rule.lags == [pytest.approx(0.03, abs=1e-4)] * len(rule.lags)
        assert len(rule.lags) >= PRESENCE_SECONDS / 0.05
        count = len(rule.lags)
        foreground.ended("one")
        foreground.claimed("two")
        with foreground.request(send_nothing):
            pass
        with anyio.fail_after(10):
            await anyio.wait_all_tasks_blocked()
        assert len(rule.lags) > count
        loops.cancel_scope.cancel()


async def send_nothing(_message: Message) -> None:
    """Be a server's send."""


async def test_a_task_that_waits_goes_on_as_soon_as_the_last_request_is_answered() -> None:
    foreground = Foreground(SteppedEnv(), Config())  # its clock stands still: no waiting time ever ends
    went_on = anyio.Event()

    async def wait_for_turn() -> None:
        await foreground.turn("task")
        went_on.set()

    async with anyio.create_task_group() as group:
        with foreground.request(send_nothing) as send_one, foreground.request(send_nothing) as send_two:
            group.start_soon(wait_for_turn)
            await send_one({"type": "http.response.start", "status": 200})
            await anyio.lowlevel.checkpoint()
            assert not went_on.is_set()
            await send_two({"type": "http.response.start", "status": 200})
            with anyio.fail_after(10):
                await went_on.wait()


async def test_switched_off_nothing_is_counted_and_nothing_waits() -> None:
    foreground = Foreground(SteppedEnv(), Config(foreground_first=False, concurrency=3))
    with foreground.request(send_nothing) as send:
        assert send is send_nothing
        foreground.began("one")
        await foreground.turn("two")
        assert (foreground.room(0), foreground.room(3)) == (3, 0)
        assert foreground.presence() == float("inf")


# In a Hookware.

Look = Callable[[], int]


def look_at(stage: Stage) -> Look:
    foreground = stage.hookware._foreground
    return lambda: foreground._rule.unanswered(foreground._env.monotonic())


@pytest.mark.parametrize("end", ["answer", "exception"])
async def test_a_request_counts_until_its_response_begins(stage: Stage, end: str) -> None:
    counts: list[int] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        counts.append(look_at(stage)())
        if end == "exception":
            raise RuntimeError("no answer")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        counts.append(look_at(stage)())  # a stream may go on for ever
        await send({"type": "http.response.body", "body": b""})

    async with stage.running(app):
        await request(stage.hookware, "/")
        counts.append(look_at(stage)())
    assert counts == ([1, 0, 0] if end == "answer" else [1, 0])


async def test_neither_deliveries_nor_websockets_count(stage: Stage) -> None:
    counts: list[int] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        if scope["type"] == "websocket":
            counts.append(look_at(stage)())

    @stage.task_handler("/worker")
    async def worker() -> None:
        counts.append(look_at(stage)())

    async with stage.running(app):
        await worker.add_async()
        await stage.settled()
        await request(stage.hookware, "/chat", type="websocket")
    assert counts == [0, 0]


async def test_a_task_added_by_a_request_runs_although_the_request_waits_for_it(stage: Stage) -> None:
    ran = anyio.Event()

    @stage.task_handler("/worker")
    async def worker() -> None:
        ran.set()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        await worker.options(transactional=False).add_async()
        with anyio.fail_after(10):
            await ran.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with stage.running(app):
        assert (await request(stage.hookware, "/")).status == 200
