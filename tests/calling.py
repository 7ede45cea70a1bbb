"""Calls of the app, as a dispatcher knows them, without an app: of functions; and one delivery, awaited."""

from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup

from hookware.alarms import Alarms
from hookware.attempt import Calling
from hookware.config import Config
from hookware.core.lifecycle import Failed, Interrupted, Outcome, Succeeded
from hookware.delivery import Call, Delivery, Target, begin
from hookware.env import Env, start_task
from hookware.errors import describe


class FunctionCall:
    """A call of a function that says what came of it; cut short, it is an interruption."""

    def __init__(self, function: Callable[[], Awaitable[Outcome]], on_ended: Callable[[Calling], None]) -> None:
        self._function, self._on_ended = function, on_ended
        self._scope = anyio.CancelScope(shield=True)
        self._outcome: Outcome = Interrupted()

    def begin(self, group: TaskGroup) -> "FunctionCall":
        start_task(group, self._run(), "call")
        return self

    def cut(self) -> None:
        self._scope.cancel()

    def outcome(self) -> Outcome:
        return self._outcome

    async def _run(self) -> None:
        try:
            with self._scope:
                self._outcome = await self._function()
        except Exception as error:  # noqa: BLE001 - as an app's
            self._outcome = Failed(None, describe(error))
        finally:
            self._on_ended(self)


async def deliver(target: Target, delivery: Delivery, *, env: Env, config: Config) -> Outcome:
    """Deliver once, as a dispatcher does, and wait for the outcome; the caller's cancellation cuts it short."""
    ended, alarms = anyio.Event(), Alarms(env)
    target.calls.start_soon(alarms.run)
    try:
        call = begin(target, delivery, alarms, lambda _call: ended.set(), env=env, config=config)
        return call if isinstance(call, Failed) else await _until_ended(call, ended)
    finally:
        alarms.close()


async def _until_ended(call: Call, ended: anyio.Event) -> Outcome:
    try:
        await ended.wait()
    except anyio.get_cancelled_exc_class():
        call.cut()
        with anyio.CancelScope(shield=True):
            await ended.wait()
        outcome = call.outcome()
        if isinstance(outcome, Succeeded):
            return outcome
        assert outcome == Interrupted()
        raise
    return call.outcome()
