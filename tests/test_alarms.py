"""Deadlines that share one timer."""

from collections.abc import Callable

import anyio

from hookware.alarms import Alarms
from hookware.env import Env


async def test_each_is_told_once_its_time_has_come_whatever_another_raises_and_none_that_was_cleared() -> None:
    alarms, told = Alarms(Env()), list[str]()

    def tell(name: str) -> Callable[[], None]:
        return lambda: told.append(name)

    def broken() -> None:
        raise ValueError("broken")

    async with anyio.create_task_group() as loops:
        loops.start_soon(alarms.run)
        await anyio.wait_all_tasks_blocked()
        alarms.set("late", 3600, tell("late"))
        alarms.set("cleared", 0.01, tell("cleared"))
        alarms.clear("cleared")
        alarms.set("broken", 0.01, broken)
        alarms.set("replaced", 3600, tell("the first"))
        alarms.set("replaced", 0.02, tell("the second"))
        alarms.set("last", 0.04, alarms.close)
    assert told == ["the second"]


async def test_those_that_are_cut_short_at_the_end_are_still_told() -> None:
    alarms, told = Alarms(Env()), list[str]()
    async with anyio.create_task_group() as loops:
        loops.start_soon(alarms.run)
        await anyio.wait_all_tasks_blocked()
        loops.cancel_scope.cancel()
        alarms.set("overrun", 0.01, lambda: told.append("overrun"))
        alarms.set("last", 0.03, alarms.close)
    assert told == ["overrun"]
