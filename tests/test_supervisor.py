"""The supervisor: no exception ends a loop, cancellation does, and nobody fails silently."""

import anyio
import pytest

from hookware.events import Event, Events, LoopFailed
from hookware.health import Health
from hookware.supervisor import supervise
from tests.samples import SteppedEnv


class SleeplessEnv(SteppedEnv):
    """Its sleeps move the clock and take no time; random is always just below one: the longest jitter."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)
        await anyio.lowlevel.checkpoint()

    def random(self) -> float:
        return 1 - 2**-53


class StrangeError(Exception):
    """A class that nobody catches by name."""


class UnreadableError(Exception):
    """An error that cannot even be looked at."""

    @property
    def orig(self) -> object:
        raise StrangeError


@pytest.mark.parametrize(
    "error",
    [
        StrangeError(),
        UnreadableError(),
        MemoryError(),
        RecursionError(),
        TimeoutError(),
        StopAsyncIteration(),
        ExceptionGroup("g", [ValueError()]),
        BaseExceptionGroup("g", [SystemExit(1)]),
    ],
    ids=repr,
)
async def test_a_loop_begins_again_whatever_it_raised(error: BaseException) -> None:
    env, events, seen = SleeplessEnv(), Events(), list[Event]()
    events.subscribe(seen.append)
    left = [error, error]

    async def body() -> None:
        if left:
            raise left.pop()

    await supervise("loop", body, env=env, events=events, health=Health(env))
    assert [(type(event), event.loop, event.error) for event in seen if isinstance(event, LoopFailed)] == [
        (LoopFailed, "loop", error),
        (LoopFailed, "loop", error),
    ]


async def test_the_wait_doubles_up_to_two_seconds_and_is_told() -> None:
    env, events, seen = SleeplessEnv(), Events(), list[Event]()
    events.subscribe(seen.append)
    count = 0

    async def body() -> None:
        nonlocal count
        count += 1
        if count <= 10:
            raise StrangeError

    await supervise("loop", body, env=env, events=events, health=Health(env))
    assert [round(pause, 6) for pause in env.slept] == [0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2, 2, 2]
    assert [event.delay_seconds for event in seen if isinstance(event, LoopFailed)] == env.slept


async def test_the_wait_is_short_again_after_a_good_while() -> None:
    env = SleeplessEnv()
    runs = 0

    async def body() -> None:
        nonlocal runs
        runs += 1
        if runs == 4:
            env.advance(31)
        if runs <= 4:
            raise StrangeError

    await supervise("loop", body, env=env, events=Events(), health=Health(env))
    assert [round(pause, 6) for pause in env.slept] == [0.1, 0.2, 0.4, 0.1]


async def test_cancellation_passes_through_alone_or_in_a_group() -> None:
    seen: list[Event] = []
    events = Events()
    events.subscribe(seen.append)
    env, entered = SleeplessEnv(), anyio.Event()

    async def body() -> None:
        entered.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as error:
            raise BaseExceptionGroup("g", [error, ValueError()]) from None

    async def supervised() -> None:
        await supervise("loop", body, env=env, events=events, health=Health(env))

    with pytest.raises(ExceptionGroup):  # noqa: PT012 - the cancellation must come while the body runs
        async with anyio.create_task_group() as loops:
            loops.start_soon(supervised)
            await entered.wait()
            loops.cancel_scope.cancel()
    assert seen == []
