"""`hookware queues`: list, look at, pause, resume, purge, and set limits while everything runs."""

import getpass
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from hookware import Queue
from hookware.cli import given
from hookware.cli.desk import Desk, run
from hookware.cli.failure import FAILED, NOTHING, USAGE, Failure
from hookware.cli.printer import Line
from hookware.cli.signals import interruptible
from hookware.cli.status import COLUMNS, cells, queue_json
from hookware.cli.text import when
from hookware.cli.values import rate_text, span_us
from hookware.core.amounts import many
from hookware.core.filter import Filter
from hookware.core.overview import Overview, QueueOverview
from hookware.core.queue import DEFAULT_QUEUE
from hookware.queue_settings import QueueChanges
from hookware.store.sql import queues as queue_rows
from hookware.store.sql.operation import Operation

_NAME = click.argument("name")


@click.group(epilog="Example: hookware queues set mail --rate 5/s --max-concurrent 10")
def queues() -> None:
    """List queues; pause, resume, purge, set limits."""


@queues.command("list", epilog="Example: hookware queues list --json")
@given.reads
def list_queues() -> None:
    """List the queues: those with tasks, those with settings, and with --app those that are configured."""

    async def work(desk: Desk) -> int | None:
        seen = await desk.insight.overview()
        if not desk.printer.lines(COLUMNS, [Line(queue_json(q), cells(q, seen.now_us)) for q in seen.queues]):
            desk.printer.say("There is no queue yet: the first task of one makes it known.")
            return NOTHING
        return None

    run(work)


@queues.command(epilog="Example: hookware queues show mail")
@_NAME
@given.reads
def show(name: str) -> None:
    """Show one queue: counts, settings, and which of them were changed at run time."""

    async def work(desk: Desk) -> None:
        seen = await desk.insight.overview()
        queue = _known(seen, name)
        desk.printer.fields(queue_json(queue), _shown(queue, seen.now_us))

    run(work)


def _shown(queue: QueueOverview, now_us: int) -> list[tuple[str, object]]:
    paused = f"since {when(queue.paused_us, now_us)}" if queue.paused else None
    if queue.paused and queue.paused_by:
        paused = f"{paused} by {queue.paused_by}"
    settings = [
        (name, value) for name, value in asdict(queue.settings).items() if name not in ("name", "retry", "rate")
    ]
    retry = ", ".join(f"{name} {value}" for name, value in asdict(queue.settings.retry).items() if value is not None)
    return [
        ("queue", queue.name), ("paused", paused), ("due", queue.due), ("scheduled", queue.scheduled),
        ("running", queue.running), ("dead", queue.dead), ("completed", queue.completed),
        ("oldest due", when(queue.oldest_due_us, now_us)), ("next due", when(queue.next_due_us, now_us)),
        ("rate", rate_text(queue.settings.rate)), ("tokens", queue.token_count), *settings, ("retry", retry),
        ("changed at run time", ", ".join(queue.overrides)),
    ]  # fmt: skip


@queues.command(epilog="Example: hookware queues pause mail")
@_NAME
@given.changes
def pause(name: str) -> None:
    """Let a queue's tasks wait, in all processes, until resume; what runs goes on, adding too."""
    run(lambda desk: _pause(desk, name, True))


@queues.command(epilog="Example: hookware queues resume mail")
@_NAME
@given.changes
def resume(name: str) -> None:
    """Let a paused queue go on, in all processes."""
    run(lambda desk: _pause(desk, name, False))


async def _pause(desk: Desk, name: str, paused: bool) -> None:
    _known(await desk.insight.overview(), name)
    who = f"{_user()} on the command line"
    operation: Operation[None] = Operation(
        statement=lambda connection, moment: queue_rows.set_paused(connection, name, paused, moment.now_us, who),
        wakes=not paused,
    )
    await operation.perform_async(desk.outbox)
    desk.printer.data({"name": name, "paused": paused}, f"The queue {name} {'is paused' if paused else 'goes on'}.")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return "somebody"


@queues.command(epilog="Example: hookware queues purge mail --yes")
@_NAME
@given.changes
def purge(name: str) -> None:
    """Delete every task that a queue has now: waiting, running and dead ones. There is no way back."""
    run(lambda desk: _purge(desk, name))


async def _purge(desk: Desk, name: str) -> int | None:
    _known(await desk.insight.overview(), name)
    states = Filter(states=("waiting", "running", "dead", "pull"), queue_names=(name,))
    count = await desk.insight.count(states)
    desk.confirm(f"Delete {many(count, 'task')} of the queue {name}, waiting, running and dead ones?")
    some, goes_on = Queue(name)._purge(), True
    with interruptible() as signals:
        while signals.count == 0 and goes_on:
            goes_on = await some.perform_async(desk.outbox)
    if goes_on:
        desk.printer.say("Interrupted: what is deleted is deleted. The same command again deletes the rest.")
        return signals.status
    desk.printer.data({"name": name, "purged": True}, f"The queue {name} is purged.")
    return None


def _setting(*names: str, convert: Callable[[str], object], metavar: str, about: str) -> Callable[[Any], Any]:
    def read(_context: click.Context, parameter: click.Parameter, value: str | None) -> object:
        if value is None or value == "none":
            return value
        try:
            return convert(value)
        except ValueError:
            raise click.BadParameter(f"{value!r} is refused: write {parameter.metavar}, or none") from None

    return click.option(*names, callback=read, metavar=metavar, help=about)


def _kept(*names: str, about: str) -> Callable[[Any], Any]:
    return _setting(*names, convert=lambda text: span_us(text) / 1e6, metavar="2h", about=about)


@queues.command("set", epilog="Example: hookware queues set mail --rate 5/s --max-concurrent 10")
@_NAME
@_setting("--rate", convert=str, metavar="5/s", about="How many attempts begin, as 5/s, 30/m, 10/h, 2000/d; 0; none.")
@_setting("--bucket-size", convert=int, metavar="5", about="How many may begin at once after a quiet time.")
@_setting("--max-concurrent", "max_concurrent_requests", convert=int, metavar="10", about="How many run at once; none.")
@_setting("--limit-per-key", convert=int, metavar="1", about="How many tasks of one limit key run at once.")
@_kept("--retention", "retention_seconds", about="How long finished tasks are kept.")
@_kept("--dead-retention", "dead_retention_seconds", about="How long dead tasks are kept; none: for ever.")
@click.option("--reset", is_flag=True, help="Undo every change first: what the app configures is good again.")
@given.changes
def set_(name: str, reset: bool, **settings: object) -> None:
    """Change a queue's limits for all processes, at once; they stay across restarts, until --reset."""
    changes = {key: None if value == "none" else value for key, value in settings.items() if value is not None}
    if not changes and not reset:
        raise Failure("nothing is given to set: pass --rate 5/s, --max-concurrent 10, or --reset", USAGE)
    run(lambda desk: _set(desk, name, changes, reset))


async def _set(desk: Desk, name: str, changes: dict[str, object], reset: bool) -> None:
    _known(await desk.insight.overview(), name)
    given_changes: QueueChanges = changes  # type: ignore[assignment]  # update checks each of them
    update = Queue(name)._update(given_changes)  # it refuses what is out of range before anything is undone
    if reset:
        await Queue(name).reset_async()
    if changes:
        await update.perform_async(desk.outbox)
    seen = await desk.insight.overview()
    queue = _known(seen, name)
    desk.printer.fields(queue_json(queue), _shown(queue, seen.now_us))


def _known(seen: Overview, name: str) -> QueueOverview:
    """Give a queue that there is: another name is most likely misspelt, and would make a new one."""
    found = next((queue for queue in seen.queues if queue.name == name), None)
    if found is not None:
        return found
    if name == DEFAULT_QUEUE:
        return QueueOverview(name=name, settings=Queue(name).settings)
    if seen.more_queues:
        raise Failure(f"the queue {name!r} is not among the first {len(seen.queues)}, which are looked at", FAILED)
    names = ", ".join(queue.name for queue in seen.queues) or "none yet"
    raise Failure(
        f"there is no queue {name!r}; there are: {names}. One without tasks and settings is known by --app main:app, "
        "if it is configured there",
        NOTHING,
    )
