"""What people do here, each in one transaction with its entry in the audit, and the page that follows."""

from functools import partial
from typing import Any, Final

from hookware.arguments import checked_queue_name
from hookware.core.task import NewTask
from hookware.dashboard.visit import Moved, NotFoundError, RefusedError, Shown, Visit
from hookware.errors import Error
from hookware.queue_settings import QueueChanges, overrides_of
from hookware.store.base import AddResult, TaskInfo
from hookware.store.sql import audit, queue_ops, queues, statements, undo
from hookware.store.sql.operation import Moment, Operation
from hookware.store.sql.queue_ops import Place
from hookware.task import Task, due_from_now

NOTICES: Final = {
    "run": "It is due now.",
    "retried": "It is due now, as if never tried.",
    "postponed": "It was given another time.",
    "cancelled": "It was called off.",
    "deleted": "It was deleted.",
    "restored": "It is back, as it was.",
    "too-late": "It cannot be brought back any more: an hour has gone by, or it is back already.",
    "unchanged": "Nothing was done: the task is not in a state for that any more.",
    "paused": "The queue is paused, in all processes.",
    "resumed": "The queue goes on.",
    "changed": "The settings were changed, in all processes.",
    "reset": "The settings are those of the configuration again.",
    "purged": "The queue was purged.",
    "added": "The task was added.",
    "cron-run": "A task of the entry was added.",
    "cron-paused": "The entry is paused: its times pass by.",
    "cron-resumed": "The entry goes on.",
}
"""What a page says after an action: looked up here, so that no address can make it say something else."""

_MOST_POSTPONED_SECONDS: Final = 30 * 86_400


async def _task(visit: Visit) -> TaskInfo:
    [task_id] = visit.ids
    found = await visit.insight.task(task_id)
    if found is None:
        raise NotFoundError("There is no such task any more.")
    return found.info


def _target(info: TaskInfo) -> str:
    return f"task {info.id} in queue {info.queue_name}"


def _place(info: TaskInfo) -> Place:
    return Place(info.queue_name, info.name or str(info.id), info.id)


def _done(value: object) -> str:
    return "done" if value not in (None, False) else "nothing was done"


def _back(info: TaskInfo, done: object, notice: str) -> Moved:
    return Moved(path=f"/task/{info.id}", notice=notice if done not in (None, False) else "unchanged")


# One task.


async def task_run(visit: Visit) -> Moved:
    """Make a waiting task due now."""
    info = await _task(visit)
    act = partial(queue_ops.run_now, place=_place(info))
    return _back(info, await visit.act(act, "run now", _target(info), _done, wakes=True), "run")


async def task_retry(visit: Visit) -> Moved:
    """Make a dead task due now, as if never tried."""
    info = await _task(visit)
    done = await visit.act(
        lambda connection, moment: statements.run_again(connection, info.id, moment.now_us),
        "retry", _target(info), _done, wakes=True,
    )  # fmt: skip
    return _back(info, done, "retried")


async def task_postpone(visit: Visit) -> Moved:
    """Give a waiting task another time."""
    info = await _task(visit)
    seconds = _number(visit.field("minutes"), "minutes", most=_MOST_POSTPONED_SECONDS / 60) * 60
    eta_us, countdown_us = due_from_now(None, seconds)
    act = partial(queue_ops.postpone, place=_place(info), eta_us=eta_us, countdown_us=countdown_us)
    done = await visit.act(act, f"postpone by {seconds:.0f} s", _target(info), _done, wakes=True)
    return _back(info, done, "postponed")


async def task_cancel(visit: Visit) -> Moved:
    """Call a task off that waits or runs."""
    info, outbox = await _task(visit), visit.outbox

    def cancel(connection: Any, moment: Moment) -> bool:
        queue_ops.wait_briefly(connection)
        until = (moment.now_us, outbox.tombstone_us, outbox.store.retention)
        cancelled = statements.cancel(connection, info.id, *until)
        if cancelled:
            moment.on_removed(info.id)
        return cancelled

    return await _gone(visit, info, await visit.act(cancel, "cancel", _target(info), _done), "cancelled")


async def task_delete(visit: Visit) -> Moved:
    """Remove a task that does not run."""
    info = await _task(visit)
    act = partial(undo.delete, task_id=info.id, tombstone_us=visit.outbox.tombstone_us)
    entry = visit.entry("delete", _target(info))
    both = audit.audited(act, entry, lambda deleted: _done(deleted.done), lambda deleted: deleted.kept)
    deleted = await Operation(statement=both).perform_async(visit.outbox)
    if not deleted.done:
        return _back(info, False, "deleted")
    return Moved(path="/tasks", notice="deleted", query={} if deleted.kept is None else {"undo": str(entry.id)})


async def task_restore(visit: Visit) -> Moved:
    """Bring a task back that was deleted."""
    [entry_id] = visit.ids

    def say(task_id: int | None) -> str:
        return "it was too late" if task_id is None else f"task {task_id}"

    act = partial(undo.restore, entry_id=entry_id)
    task_id = await visit.act(act, "bring back", f"what entry {entry_id} had deleted", say, wakes=True)
    if task_id is None:
        return Moved(path="/audit", notice="too-late")
    return Moved(path=f"/task/{task_id}", notice="restored")


async def _gone(visit: Visit, info: TaskInfo, done: bool, notice: str) -> Moved:
    if not done or await visit.insight.task(info.id) is not None:
        return _back(info, done, notice)
    return Moved(path="/tasks", notice=notice)


# A queue.


def _queue_page(name: str, notice: str) -> Moved:
    return Moved(path="/queue", query={"name": name}, notice=notice)


async def _queue_name(visit: Visit) -> str:
    return (await visit.queue(visit.field("name"))).name


async def queue_pause(visit: Visit) -> Moved:
    """Let a queue wait."""
    name, who = await _queue_name(visit), visit.visitor.who
    await visit.act(
        lambda connection, moment: queues.set_paused(connection, name, True, moment.now_us, who),
        "pause", f"queue {name}", lambda _none: "done",
    )  # fmt: skip
    return _queue_page(name, "paused")


async def queue_resume(visit: Visit) -> Moved:
    """Let a queue go on."""
    name = await _queue_name(visit)
    await visit.act(
        lambda connection, moment: queues.set_paused(connection, name, False, moment.now_us),
        "resume", f"queue {name}", lambda _none: "done", wakes=True,
    )  # fmt: skip
    return _queue_page(name, "resumed")


async def queue_settings(visit: Visit) -> Moved:
    """Change the rate, the bucket and the concurrency of a queue, in all processes."""
    name = await _queue_name(visit)
    rate, concurrency, bucket = visit.field("rate"), visit.field("concurrency"), visit.field("bucket")
    changes: QueueChanges = {}  # what is as it was shown stays as it is configured
    if rate != visit.field("was_rate"):
        changes["rate"] = rate or None
    if concurrency != visit.field("was_concurrency"):
        changes["max_concurrent_requests"] = int(_number(concurrency, "the concurrency")) if concurrency else None
    if bucket and bucket != visit.field("was_bucket"):
        changes["bucket_size"] = int(_number(bucket, "the bucket size"))
    overrides = overrides_of(name, changes)
    said = ", ".join(f"{key}={value}" for key, value in overrides.items())
    act = partial(queue_ops.change_settings, queue_name=name, changes=overrides)
    await visit.act(act, "change settings", f"queue {name}", lambda _none: said, wakes=True)
    return _queue_page(name, "changed")


async def queue_reset(visit: Visit) -> Moved:
    """Undo all changes of a queue's settings."""
    name = await _queue_name(visit)
    await visit.act(
        lambda connection, _moment: queues.set_overrides(connection, name, {}),
        "reset settings", f"queue {name}", lambda _none: "done", wakes=True,
    )  # fmt: skip
    return _queue_page(name, "reset")


# Cron entries.


async def _cron(visit: Visit, action: str) -> str:
    name = visit.field("name")
    if name not in {entry.name for entry in await visit.cron.entries()}:
        raise NotFoundError("There is no such cron entry.")
    match action:
        case "run now":
            result = f"task {await visit.cron.run_now(name)}"
        case "pause":
            await visit.cron.pause(name)
            result = "done"
        case _:
            await visit.cron.resume(name)
            result = "done"
    await visit.note(action, f"cron entry {name}", result)
    return name


async def cron_run(visit: Visit) -> Moved:
    """Add a task of a cron entry."""
    await _cron(visit, "run now")
    return Moved(path="/cron", notice="cron-run")


async def cron_pause(visit: Visit) -> Moved:
    """Let the times of a cron entry pass."""
    await _cron(visit, "pause")
    return Moved(path="/cron", notice="cron-paused")


async def cron_resume(visit: Visit) -> Moved:
    """Let a cron entry go on."""
    await _cron(visit, "resume")
    return Moved(path="/cron", notice="cron-resumed")


# A new task.


async def compose(visit: Visit) -> Moved | Shown:
    """Add a task that was written by hand."""
    try:
        task = _composed(visit)
    except (Error, TypeError, ValueError) as error:
        return Shown(template="compose.html", values={"given": dict(visit.form), "problem": str(error)}, status=400)

    def add(connection: Any, moment: Moment) -> AddResult:
        return statements.add(connection, [task], moment.now_us)[0]

    result = await visit.act(
        add, "add", f"task {task.id} for {task.url.partition('?')[0]} in queue {task.queue_name}",
        lambda added: added.value, wakes=True,
    )  # fmt: skip
    if result is not AddResult.ADDED:
        problem = f"It was not added: {result.value}."
        return Shown(template="compose.html", values={"given": dict(visit.form), "problem": problem}, status=409)
    return Moved(path=f"/task/{task.id}", notice="added")


def _composed(visit: Visit) -> NewTask:
    queue_name = checked_queue_name(visit.field("queue") or "default")
    arguments: dict[str, Any] = {"url": visit.field("url"), "method": visit.field("method") or "POST"}
    if not arguments["url"].startswith("/"):
        raise RefusedError("Write a path of the app, such as /worker.")
    if name := visit.field("name"):
        arguments["name"] = name
    if minutes := visit.field("minutes"):
        arguments["countdown"] = _number(minutes, "minutes", most=_MOST_POSTPONED_SECONDS / 60) * 60
    payload = None
    if text := visit.field("payload"):
        if visit.field("kind") == "json":
            payload, arguments["headers"] = text, {"content-type": "application/json"}
        else:
            arguments["params"] = _params(text)
    task = Task(payload, **arguments)
    return visit.outbox.new_tasks([task._draft(queue_name)])[0]


def _params(text: str) -> dict[str, list[str]]:
    params: dict[str, list[str]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, equals, value = line.partition("=")
        if not equals:
            raise RefusedError("Write each param in a line of its own, as key=value.")
        params.setdefault(name.strip(), []).append(value.strip())
    return params


def _number(text: str, what: str, *, most: float = 1_000_000) -> float:
    try:
        number = float(text)
    except ValueError:
        raise RefusedError(f"Write a number for {what}.") from None
    if not 0 <= number <= most:
        raise RefusedError(f"Write a number from 0 to {most:,.0f} for {what}.")
    return number


def notice_of(code: str) -> str | None:
    """Give what a page is to say."""
    return NOTICES.get(code)
