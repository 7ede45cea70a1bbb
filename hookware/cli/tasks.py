"""`hookware tasks`: find them, look at one, ask why, and act on them by id or by filter."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from hookware.cli import given
from hookware.cli.desk import Desk, run
from hookware.cli.failure import NOTHING, USAGE, Failure
from hookware.cli.many import act_on_many
from hookware.cli.moving import move_many
from hookware.cli.printer import Line
from hookware.cli.task_text import COLUMNS, cells, shown, task_json
from hookware.cli.values import moment_of, span_us
from hookware.core.filter import parse
from hookware.store.base import TaskInfo
from hookware.store.views import Action

_IDS = click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
_ID = click.argument("task_id", type=int, metavar="ID")
_RESUME = click.option("--resume", metavar="TOKEN", help="Go on where an interrupted run of this says it stopped.")


@click.group(epilog="Example: hookware tasks retry --filter 'state:dead queue:mail older:2h'")
def tasks() -> None:
    """List tasks, look at one, and act on many.

    Those to act on are given by their ids, or by a filter.

    A filter is a line of terms such as: state:dead queue:mail url:/worker* error:"timed out" older:2h attempts:>3
    """


@tasks.command("list", epilog="Example: hookware tasks list --filter 'state:dead queue:mail' --json")
@click.option("-n", "--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at most.")
@click.option("--after", metavar="TOKEN", help="Go on after the list that said so.")
@given.reads_many
def list_tasks(limit: int, after: str | None) -> None:
    """List tasks: waiting ones in the order in which they are due, dead and completed ones the latest first."""
    run(lambda desk: _list(desk, limit, after))


async def _list(desk: Desk, limit: int, after: str | None) -> int | None:
    found: list[TaskInfo] = []
    chosen, place = parse(desk.given.filter or ""), after
    while True:
        page = await desk.insight.list(chosen, after=place, limit=limit - len(found))
        found += page.tasks
        place = page.after
        if place is None or len(found) >= limit:
            break
    if not desk.printer.lines(COLUMNS, [Line(task_json(task), cells(task)) for task in found]):
        desk.printer.say(f"No task matches: {chosen}" if str(chosen) else "There is no task.")
        return NOTHING
    if place is not None:
        desk.printer.say(f"There may be more: --after {place}")
    return None


@tasks.command(epilog="Example: hookware tasks show 912733831356870564 --payload")
@_ID
@click.option("--payload", is_flag=True, help="Show the body, too, which may hold what is not for everybody's eyes.")
@given.reads
def show(task_id: int, payload: bool) -> None:
    """Show one task: all that is known, why it does not run, its attempts, and the tasks it has added."""

    async def work(desk: Desk) -> int | None:
        detail = await desk.insight.task(task_id)
        said = await desk.insight.why(task_id)
        if detail is None:
            desk.printer.say(str(said))
            return NOTHING
        attempts = await desk.outbox.store.attempts(task_id)
        children = await desk.outbox.store.children(task_id)
        desk.printer.fields(*shown(detail, said, attempts, children, with_payload=payload))
        return None

    run(work)


@tasks.command(epilog="Example: hookware tasks why 912733831356870564")
@_ID
@given.reads
def why(task_id: int) -> None:
    """Say in a sentence with numbers why a task does not run; or that it runs, or has ended."""

    async def work(desk: Desk) -> int | None:
        said = await desk.insight.why(task_id)
        also = [{"code": reason.code, "sentence": reason.sentence} for reason in said.also]
        data = {"task_id": task_id, "code": said.code, "sentence": said.sentence, "also": also}
        desk.printer.data(data, str(said))
        return NOTHING if said.code == "unknown" else None

    run(work)


def _act(action: Action, ids: tuple[int, ...], resume: str | None) -> None:
    run(lambda desk: act_on_many(desk, action, ids, resume))


@tasks.command(epilog="Example: hookware tasks retry --filter 'state:dead queue:mail older:2h'")
@_IDS
@_RESUME
@given.changes_many
def retry(ids: tuple[int, ...], resume: str | None) -> None:
    """Make dead tasks due now, as if never tried.

    Those of a filter are counted first, and you are asked. Ctrl-C ends it between two transactions, and says how to
    go on; none is lost, and none is done twice.
    """
    _act("retry", ids, resume)


@tasks.command(epilog="Example: hookware tasks cancel 912733831356870564")
@_IDS
@_RESUME
@given.changes_many
def cancel(ids: tuple[int, ...], resume: str | None) -> None:
    """Call off tasks that wait or run: a waiting one is removed, a running one is dead as "cancelled"."""
    _act("cancel", ids, resume)


@tasks.command(epilog="Example: hookware tasks delete --filter 'state:dead older:30d' --yes")
@_IDS
@_RESUME
@given.changes_many
def delete(ids: tuple[int, ...], resume: str | None) -> None:
    """Delete tasks that do not run. There is no way back."""
    _act("delete", ids, resume)


@tasks.command("run", epilog="Example: hookware tasks run 912733831356870564")
@_IDS
@given.changes_many
def run_now(ids: tuple[int, ...]) -> None:
    """Make waiting tasks due now, whatever their ETA or the wait for their retry.

    Pauses, rates and limits hold all the same. Dead tasks: hookware tasks retry.
    """
    run(lambda desk: move_many(desk, ids, None, 0))


def _typed(convert: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    def read(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else convert(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return read


@tasks.command(epilog="Example: hookware tasks postpone 912733831356870564 --countdown 2h")
@_IDS
@click.option("--countdown", metavar="SPAN", callback=_typed(span_us), help="In how long they are due: 90s, 10min, 2h.")
@click.option("--eta", metavar="TIME", callback=_typed(moment_of), help="When they are due: 2026-12-24T18:00+01:00.")
@given.changes_many
def postpone(ids: tuple[int, ...], countdown: int | None, eta: datetime | None) -> None:
    """Give waiting tasks another time at which they are due: earlier or later."""
    if (countdown is None) == (eta is None):
        raise Failure("when are they due? Give --countdown 2h or --eta 2026-12-24T18:00, and not both", USAGE)
    run(lambda desk: move_many(desk, ids, eta, (countdown or 0) / 1e6 if eta is None else None))
