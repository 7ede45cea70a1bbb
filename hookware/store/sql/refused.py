"""What is told of tasks that an `add` of its own transaction has left out."""

from collections.abc import Sequence

from hookware.core.task import NewTask
from hookware.errors import InvalidTaskError, TaskAlreadyExistsError, TombstonedTaskError
from hookware.store.base import AddResult


def waits_already(queue_name: str, dedup_key: str | None) -> str:
    """Say why a task with `on_conflict="raise"` was not added."""
    return (
        f"a task with the key {dedup_key!r} waits in queue {queue_name!r} already; the task was not added, because of "
        'on_conflict="raise": catch this, or use on_conflict="skip" or "replace"'
    )


def raise_for(tasks: Sequence[NewTask], results: Sequence[AddResult]) -> None:
    """Raise for the last task that was not added, as App Engine does: the others are added all the same."""
    error: InvalidTaskError | None = None
    for task, result in zip(tasks, results, strict=True):
        if result is AddResult.KEY_WAITS:
            error = TaskAlreadyExistsError(waits_already(task.queue_name, task.keys.dedup_key))
        where = f"the name {task.name!r} in queue {task.queue_name!r}"
        if result is AddResult.NAME_TAKEN:
            error = TaskAlreadyExistsError(f"{where} belongs to a task that still exists; the task was not added")
        elif result is AddResult.NAME_TOMBSTONED:
            error = TombstonedTaskError(f"{where} belonged to a task that has run; the task was not added")
    if error is not None:
        each = zip(tasks, results, strict=True)
        error.added = tuple(task if result is AddResult.ADDED else None for task, result in each)
        raise error
