"""Giving many waiting tasks another ETA, one transaction each."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final

from hookware.cli.desk import Desk
from hookware.cli.failure import FAILED, NOTHING, USAGE, Failure
from hookware.cli.many import chosen_by
from hookware.cli.meter import Meter
from hookware.cli.signals import interruptible
from hookware.core.amounts import Count, many
from hookware.core.filter import Filter
from hookware.insight import MAX_PAGE
from hookware.store.base import TaskInfo
from hookware.store.sql import queue_ops
from hookware.store.sql.operation import Operation
from hookware.store.sql.queue_ops import Place
from hookware.task import due_from_now

_MOST: Final = 10_000
_WAITING: Final = ("due", "scheduled", "waiting", "retrying", "pull")


async def move_many(desk: Desk, ids: tuple[int, ...], eta: datetime | None, countdown: float | None) -> int | None:
    """Move all waiting tasks that are meant, `countdown` 0 meaning that they are due now; the exit status."""
    chosen = _of_waiting(chosen_by(desk, ids))
    # Reckoned once, so that it is one time for all of them; a countdown is the database's.
    eta_us, countdown_us = due_from_now(eta, countdown)
    is_now = countdown == 0
    found, is_all = await _found(desk, chosen)
    if not found:
        desk.printer.say(f"No waiting task matches: {chosen}")
        for task_id in chosen.ids[:10]:
            desk.printer.say(str(await desk.insight.why(task_id)))
        return NOTHING
    if not ids:
        desk.confirm(f"{'Run now' if is_now else 'Postpone'} {many(len(found), 'waiting task')} ({chosen})?")
    meter = Meter("run" if is_now else "postpone", Count(len(found)), desk.printer, desk.outbox.env.monotonic, 0)
    done_count = seen_count = 0
    with interruptible() as signals:
        for task in found:
            done_count += await _move(desk, task, is_now, eta_us, countdown_us)
            seen_count += 1
            meter.show(done_count, seen_count - done_count)
            if signals.count:
                break
    meter.end()
    text = f"{many(done_count, 'task is', 'tasks are')} {'due now' if is_now else 'postponed'}."
    moved = {
        "done_count": done_count,
        "left_count": seen_count - done_count,
        "is_complete": is_all and seen_count == len(found),
    }
    desk.printer.data(moved, text)
    if seen_count < len(found):
        desk.printer.say("Interrupted: what is moved is moved. The same command again moves the rest.")
        return signals.status
    if not is_all:
        raise Failure(
            f"more than {_MOST:,} tasks match, and the others are as they were: choose them by a narrower filter"
        )
    return NOTHING if done_count == 0 else FAILED if done_count < len(ids) else None


def _of_waiting(chosen: Filter) -> Filter:
    if not chosen.states:
        if chosen == Filter():
            raise Failure("an empty filter would mean every task: write at least one term, such as queue:mail", USAGE)
        return replace(chosen, states=("waiting", "pull"))
    if wrong := [state for state in chosen.states if state not in _WAITING]:
        raise Failure(f"tasks that are {', '.join(wrong)} do not wait; dead ones: hookware tasks retry", USAGE)
    return chosen


async def _found(desk: Desk, chosen: Filter) -> tuple[Sequence[TaskInfo], bool]:
    """Give the tasks of a filter, and whether these are all."""
    found: list[TaskInfo] = []
    after: str | None = None
    while len(found) < _MOST:
        page = await desk.insight.list(chosen, after=after, limit=MAX_PAGE)
        found += page.tasks
        after = page.after
        if after is None:
            return found, True
    desk.printer.say(f"More than {_MOST:,} tasks match: this is for the first {len(found):,}.")
    return found, False


async def _move(desk: Desk, task: TaskInfo, is_now: bool, eta_us: int | None, countdown_us: int) -> bool:
    place = Place(task.queue_name, "", task.id)
    statement = (
        partial(queue_ops.run_now, place=place)
        if is_now
        else partial(queue_ops.postpone, place=place, eta_us=eta_us, countdown_us=countdown_us)
    )
    moving: Operation[int | None] = Operation(statement=statement, wakes=True)
    return await moving.perform_async(desk.outbox) is not None
