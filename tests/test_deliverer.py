"""What waits before it is delivered can be cut short at every moment, and is told of once."""

import asyncio
from collections.abc import Callable

import anyio
import pytest
from starlette.types import Receive, Scope, Send

from hookware.alarms import Alarms
from hookware.attempt import Attempt, Calling
from hookware.config import Config
from hookware.core.lifecycle import Failed, Interrupted, Outcome, Succeeded
from hookware.core.task import Lease
from hookware.deliverer import Deliverer
from hookware.delivery import Call, Delivery, Target, begin
from hookware.env import Env
from hookware.events import Events
from hookware.foreground import Foreground
from hookware.heartbeat import Heartbeat
from hookware.store.memory import MemoryStore
from tests.calling import FunctionCall
from tests.samples import leased_task


class RestingHeartbeat(Heartbeat):
    """Lets rows rest for as long as the test says, whatever is cancelled meanwhile: as a database does."""

    def __init__(self, env: Env) -> None:
        super().__init__(MemoryStore(env.now_us, tombstone_us=0), env, Config())
        self.resting, self.rested = anyio.Event(), anyio.Event()

    async def rest(self, lease: Lease) -> None:
        self.resting.set()
        with anyio.CancelScope(shield=True):
            await self.rested.wait()


async def test_a_cut_that_comes_while_a_row_is_put_to_rest_is_not_lost() -> None:
    env = Env()
    heartbeat, events = RestingHeartbeat(env), Events()
    calls: list[Delivery] = []
    concluded: list[Outcome | None] = []

    def call(delivery: Delivery, _alarms: Alarms, on_ended: Callable[[Calling], None]) -> Calling | Failed:
        calls.append(delivery)
        return FunctionCall(succeed, on_ended).begin(group)

    async with anyio.create_task_group() as group:
        deliverer = Deliverer(
            call, lambda _delivery: True, lambda _attempt, outcome: concluded.append(outcome), alarms=Alarms(env),
            heartbeat=heartbeat, foreground=Foreground(env, Config()), env=env, config=Config(), events=events,
        )  # fmt: skip
        attempt = Attempt(leased_task(), env.monotonic())
        heartbeat.hold(attempt.lease, env.monotonic() + 30, lambda: None)
        deliverer.deliver(group, attempt)
        await heartbeat.resting.wait()
        attempt.cut()
        heartbeat.rested.set()
    assert calls == []
    assert concluded == [Interrupted()]


async def succeed() -> Outcome:
    return Succeeded(200)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_call_that_is_cancelled_before_its_first_step_has_ended() -> None:
    ended: list[Call] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("it was cancelled before")

    async with anyio.create_task_group() as group:
        task = leased_task()
        begin(Target(app, {}, group), Delivery(task), Alarms(Env()), ended.append, env=Env(), config=Config())
        (call,) = (each for each in asyncio.all_tasks() if each.get_name() == f"task {task.label}")
        call.cancel()
        await anyio.wait_all_tasks_blocked()
    assert len(ended) == 1
