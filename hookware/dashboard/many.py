"""Acting on all tasks that a filter chooses, and purging: previewed, then some at a time, until nothing is left.

A browser goes on by posting the form of the progress page again: by itself with JavaScript, by a button without.
"""

from dataclasses import replace
from typing import Final, cast, get_args

from hookware.core.filter import Filter, FilterError, parse
from hookware.dashboard.redaction import refuse_to_tell, task_of, url_of
from hookware.dashboard.visit import Moved, NotFoundError, RefusedError, Shown, Visit
from hookware.store.sql import bulk
from hookware.store.sql.operation import Operation
from hookware.store.sql.queue_ops import Purge
from hookware.store.views import Action, BulkProgress

_SECONDS_AT_ONCE: Final = 1.0
"""How long one request goes on: a progress page is to show progress."""

_DELETING: Final = frozenset(("delete",))


def _action(visit: Visit, given: str) -> Action:
    if given not in get_args(Action):
        raise NotFoundError("There is no such action.")
    if given in _DELETING and not visit.may("admin"):
        raise RefusedError("Deleting many tasks at once is for the role admin.")
    return cast("Action", given)


def _filter(visit: Visit, given: str) -> Filter:
    try:
        chosen = parse(given)
    except FilterError as error:
        raise RefusedError(str(error)) from None
    refuse_to_tell(chosen, may_see=visit.may("admin"), may_act=visit.may("operate"))
    if chosen == Filter():
        raise RefusedError("An empty filter would mean every task: write at least one term, such as state:dead.")
    return chosen


def _target(chosen: Filter) -> str:
    """Name the tasks of a filter for the audit, which every role may read."""
    return str(replace(chosen, urls=tuple(url_of(url, may_see=False) for url in chosen.urls)))


async def preview(visit: Visit) -> Shown:
    """Show how many tasks are meant, before anything is done."""
    action = _action(visit, visit.query("action"))
    chosen = _filter(visit, visit.query("filter"))
    count = await visit.insight.count(chosen)
    page = await visit.insight.list(chosen, limit=5)
    samples = [task_of(each, may_see=visit.may("admin")) for each in page.tasks]
    values = {"action": action, "filter": str(chosen), "count": count, "samples": samples, "progress": None}
    return Shown(template="many.html", values=values)


async def step(visit: Visit) -> Shown:
    """Do it to some of the tasks, and show how far it has come."""
    action = _action(visit, visit.field("action"))
    chosen = _filter(visit, visit.field("filter"))
    token, target = visit.field("token") or None, _target(chosen)
    try:
        before = bulk.begin(action, chosen, token).progress
        if token is None:
            await visit.note(f"{action} all", target, "begun")
        progress = await _go_on(visit, action, chosen, token)
    except FilterError as error:
        raise RefusedError(str(error)) from None
    # What this request has done: the token, which says the rest, comes from the browser.
    done, left = progress.done_count - before.done_count, progress.left_count - before.left_count
    said = [f"{done} done", f"{left} left alone" if left else "", "" if progress.is_complete else "more to do"]
    await visit.note(f"{action} all", target, ", ".join(filter(None, said)))
    values = {"action": action, "filter": str(chosen), "count": None, "samples": (), "progress": progress}
    return Shown(template="many.html", values=values)


async def _go_on(visit: Visit, action: Action, chosen: Filter, token: str | None) -> BulkProgress:
    env = visit.outbox.env
    until = env.monotonic() + _SECONDS_AT_ONCE
    while True:
        progress = await visit.insight.bulk_step(action, chosen, resume=token)
        token = progress.token
        if progress.is_complete or env.monotonic() >= until:
            return progress


async def purge(visit: Visit) -> Shown | Moved:
    """Delete some of what a queue had when its purge began."""
    name = (await visit.queue(visit.field("name"))).name
    before = visit.field("before")
    before_us = int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None
    purging, env = Purge(name, before_us), visit.outbox.env
    until = env.monotonic() + _SECONDS_AT_ONCE
    if before_us is None:
        some = await visit.act(purging, "purge", f"queue {name}", lambda _some: "begun")
    else:
        await visit.note("purge", f"queue {name}", "goes on")
        some = await Operation(statement=purging).perform_async(visit.outbox)
    while some and env.monotonic() < until:
        some = await Operation(statement=purging).perform_async(visit.outbox)
    if some:
        return Shown(template="purging.html", values={"name": name, "before": str(purging.before_us)})
    await visit.note("purge", f"queue {name}", "done")
    return Moved(path="/queue", query={"name": name}, notice="purged")
