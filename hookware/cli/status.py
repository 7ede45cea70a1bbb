"""`hookware status`: the queues and processes, once or again and again."""

import sys
from dataclasses import asdict

import click

from hookware.cli import given
from hookware.cli.desk import Desk, run
from hookware.cli.printer import Line, count_json
from hookware.cli.signals import interruptible
from hookware.cli.text import when
from hookware.core.amounts import NONE, many, span
from hookware.core.overview import Overview, QueueOverview

COLUMNS = ("queue", "due", "scheduled", "running", "dead", "oldest", "last 5 min", "state")
_ABOVE = "\x1b[H\x1b[J"
"""Clears the terminal."""


@click.command(epilog="Example: hookware status --watch")
@click.option("-w", "--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "--every",
    "seconds",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    show_default=True,
    help="How often, in seconds.",
)
@given.reads
def status(watch: bool, seconds: float) -> None:
    """Show the queues with their counts, and the processes.

    --watch refreshes the terminal in place; where standard output is no terminal, it prints a line each time.
    """

    async def work(desk: Desk) -> None:
        if not watch:
            _show(desk, await desk.insight.overview())
            return
        with interruptible() as signals:
            while signals.count == 0:
                _refresh(desk, await desk.insight.overview())
                await signals.wait_for(seconds)

    run(work)


def _refresh(desk: Desk, seen: Overview) -> None:
    if desk.printer.as_json:
        _show(desk, seen)
    elif sys.stdout.isatty():
        click.echo(_ABOVE, nl=False)
        _show(desk, seen)
    else:
        click.echo(f"{when(seen.now_us)}  {_summary(seen)}")
        sys.stdout.flush()


def _show(desk: Desk, seen: Overview) -> None:
    if desk.printer.as_json:
        desk.printer.data(_json(seen), "")
        return
    click.echo(f"{when(seen.now_us)}  {_summary(seen)}")
    lines = [Line({}, cells(queue, seen.now_us)) for queue in seen.queues]
    if lines:
        click.echo()
        desk.printer.lines(COLUMNS, lines)
    if seen.processes:
        click.echo()
        desk.printer.lines(("process", "runs", "of", "version", "seen"), _processes(seen))
    if seen.more_queues:
        desk.printer.say("There are more queues than are listed.")


def _summary(seen: Overview) -> str:
    due, running, dead = NONE, NONE, NONE
    for queue in seen.queues:
        due, running, dead = due.plus(queue.due), running.plus(queue.running), dead.plus(queue.dead)
    ended = seen.last_minutes
    return (
        f"{due} due, {running} running, {dead} dead; "
        f"{many(len(seen.dispatchers), 'process runs', 'processes run')} tasks; "
        f"in 5 minutes {ended.completed_count:,} completed, {ended.failed_count:,} failed, {ended.dead_count:,} died"
    )


def cells(queue: QueueOverview, now_us: int) -> tuple[object, ...]:
    """Give a queue's cells, for `COLUMNS`."""
    most = "" if queue.most_running is None else f"/{queue.most_running}"
    oldest = "-" if queue.oldest_due_us is None else span(now_us - queue.oldest_due_us)
    state = "paused" if queue.paused else queue.settings.mode
    ended = f"{queue.last_minutes.completed_count:,} ok {queue.last_minutes.failed_count:,} failed"
    return queue.name, queue.due, queue.scheduled, f"{queue.running}{most}", queue.dead, oldest, ended, state


def _processes(seen: Overview) -> list[Line]:
    return [
        Line({}, (
            process.label,
            process.running_count,
            process.concurrency if process.dispatches else "stores only",
            process.version,
            "alive" if process.is_alive else f"gone, {span(seen.now_us - process.seen_us)} ago",
        ))
        for process in seen.processes
    ]  # fmt: skip


def queue_json(queue: QueueOverview) -> dict[str, object]:
    """Give a queue as JSON has it."""
    counts = ("due", "scheduled", "running", "dead", "completed")
    ended = queue.last_minutes
    return {
        "name": queue.name,
        **{name: count_json(getattr(queue, name)) for name in counts},
        "paused": queue.paused,
        "paused_us": queue.paused_us,
        "paused_by": queue.paused_by,
        "oldest_due_us": queue.oldest_due_us,
        "next_due_us": queue.next_due_us,
        "token_count": queue.token_count,
        "last_minutes": {"completed": ended.completed_count, "failed": ended.failed_count, "dead": ended.dead_count},
        "settings": asdict(queue.settings),
        "overrides": list(queue.overrides),
    }


def _json(seen: Overview) -> dict[str, object]:
    return {
        "now_us": seen.now_us,
        "queues": [queue_json(queue) for queue in seen.queues],
        "processes": [asdict(process) for process in seen.processes],
    }
