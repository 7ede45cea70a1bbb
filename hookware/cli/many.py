"""An action on many tasks, from the previewed count to the last one; interrupted, it says how to go on."""

import shlex
from typing import Final

from hookware.cli.desk import Desk
from hookware.cli.failure import FAILED, NOTHING, USAGE, Failure
from hookware.cli.meter import Meter
from hookware.cli.signals import Interruptions, interruptible
from hookware.core.amounts import Count, many
from hookware.core.filter import MAX_ALTERNATIVES, Filter, parse
from hookware.errors import TransientError
from hookware.store.sql.bulk import begin
from hookware.store.views import Action, BulkProgress

PAST: Final[dict[Action, str]] = {"retry": "retried", "cancel": "cancelled", "delete": "deleted"}


def chosen_by(desk: Desk, ids: tuple[int, ...]) -> Filter:
    """Give the filter of the tasks that are meant: by their ids, or by `--filter`.

    Raises:
        Failure: none or both are given, or too many ids.
        FilterError: the filter cannot be read.
    """
    text = desk.given.filter
    if bool(ids) == (text is not None):
        raise Failure("which tasks? Give their ids, or --filter 'state:dead queue:mail', and not both", USAGE)
    if len(ids) > MAX_ALTERNATIVES:
        raise Failure(f"{len(ids)} ids are given, and {MAX_ALTERNATIVES} may be: write a --filter", USAGE)
    return Filter(ids=tuple(dict.fromkeys(ids))) if ids else parse(text or "")


async def act_on_many(desk: Desk, action: Action, ids: tuple[int, ...], resume: str | None) -> int | None:
    """Do something to all tasks that are meant: after a look at how many, and a question; the exit status."""
    chosen = begin(action, chosen_by(desk, ids), resume).chosen
    total = await desk.insight.count(chosen)
    if resume is None:
        if total == Count(0):
            return await _nothing(desk, chosen)
        if action != "retry" or not ids:
            desk.confirm(f"{action.capitalize()} {many(total, 'task')} ({chosen})?")
    with interruptible() as signals:
        progress = await _steps(desk, action, chosen, resume, total, signals)
    return await _told(desk, progress, ids, signals)


async def _steps(
    desk: Desk, action: Action, chosen: Filter, resume: str | None, total: Count, signals: Interruptions
) -> BulkProgress:
    before = begin(action, chosen, resume).progress
    whole = total.plus(Count(before.done_count + before.left_count))  # what was revived is counted no more
    meter = Meter(action, whole, desk.printer, desk.outbox.env.monotonic, before.done_count)
    progress = before
    try:
        while not progress.is_complete and signals.count == 0:
            progress = await desk.insight.bulk_step(action, chosen, resume=progress.token)
            meter.show(progress.done_count, progress.left_count)
    except BaseException as error:  # also a second Ctrl-C, which waits for nothing
        desk.printer.say(_go_on(desk, progress))
        if isinstance(error, TransientError):
            raise Failure(f"the database stays busy: {error}") from None
        raise
    finally:
        meter.end()
    return progress


async def _told(desk: Desk, progress: BulkProgress, ids: tuple[int, ...], signals: Interruptions) -> int | None:
    past = PAST[progress.action]
    text = f"{many(progress.done_count, 'task')} {past}."
    if progress.left_count:
        left = many(progress.left_count, "other one was", "others were")
        text += f" {left} left alone: changing just then, running, or ended after this began."
    said = {name: getattr(progress, name) for name in ("action", "filter", "done_count", "left_count", "is_complete")}
    desk.printer.data({**said, "token": progress.token}, text)
    if not progress.is_complete:
        desk.printer.say(_go_on(desk, progress))
        return signals.status
    if progress.done_count == 0:
        return NOTHING
    if len(ids) > progress.done_count:
        desk.printer.say(f"{len(ids) - progress.done_count} of the {len(ids)} ids were not fit to be {past}.")
        return FAILED
    return None


async def _nothing(desk: Desk, chosen: Filter) -> int:
    desk.printer.say(f"No task matches: {chosen}")
    for task_id in chosen.ids[:10]:
        desk.printer.say(str(await desk.insight.why(task_id)))
    return NOTHING


def _go_on(desk: Desk, progress: BulkProgress) -> str:
    words = ["hookware", "tasks", progress.action, *desk.given.options(), "--filter", progress.filter]
    return (
        f"Interrupted after {many(progress.done_count, 'task')}: what is done is done, and the rest is as it was. "
        f"To go on:\n  {shlex.join([*words, '--yes', '--resume', progress.token])}"
    )
