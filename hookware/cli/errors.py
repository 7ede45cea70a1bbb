"""`hookware errors`: what fails, grouped by what the errors have in common."""

from dataclasses import asdict

import click

from hookware.cli import given
from hookware.cli.desk import Desk, run
from hookware.cli.failure import NOTHING
from hookware.cli.printer import Line
from hookware.cli.text import cut, when
from hookware.core.overview import ErrorGroup


@click.command(epilog="Example: hookware errors --queue mail")
@click.option("--queue", metavar="NAME", help="Of this queue only.")
@click.option("-n", "--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="How many groups.")
@given.reads
def errors(queue: str | None, limit: int) -> None:
    """Group the errors of tasks that failed.

    Those of the tasks that died last, and of those that wait for a retry.
    """

    async def work(desk: Desk) -> int | None:
        found = await desk.insight.errors(queue_name=queue, limit=limit)
        lines = [Line(asdict(group), _cells(group)) for group in found.groups]
        if not desk.printer.lines(("dead", "retrying", "status", "queue", "url", "latest", "error"), lines):
            desk.printer.say("No task has failed.")
            return NOTHING
        if found.more:
            desk.printer.say(f"These are the errors of the last {found.looked_at:,} tasks; there are more.")
        return None

    run(work)


def _cells(group: ErrorGroup) -> tuple[object, ...]:
    statuses = ",".join(map(str, group.statuses)) or "-"
    urls = cut(", ".join(group.urls[:2]), 40)
    queues = cut(", ".join(group.queue_names), 30)
    error = cut(group.pattern, 80)
    return group.dead_count, group.retrying_count, statuses, queues, urls, when(group.latest_us), error
