"""The pages that are read: each asks, and says which template is to be filled with what."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from hookware.core.amounts import many, span
from hookware.core.filter import Filter, FilterError, parse
from hookware.core.overview import ErrorGroup, Overview
from hookware.dashboard import plots
from hookware.dashboard.redaction import (
    answer_of,
    error_of,
    headers_of,
    payload_of,
    record_of,
    refuse_to_tell,
    sentence_of,
    task_of,
    url_of,
)
from hookware.dashboard.visit import NotFoundError, Shown, Visit
from hookware.store.base import TaskInfo
from hookware.store.sql import audit
from hookware.store.sql.operation import Operation

_MINUTES: Final = 60
_AUDIT_PAGE: Final = 50


async def overview(visit: Visit) -> Shown:
    """Show how everything is."""
    seen, findings = await visit.insight.checked_overview()
    minutes = await visit.insight.minutes(minute_count=_MINUTES)
    errors = await visit.insight.errors(limit=5)
    drawn = [plots.throughput(minutes), plots.latency(minutes), plots.errors(minutes)]
    return Shown(
        template="overview.html",
        values={
            "seen": seen, "sentence": _sentence(seen), "findings": findings, "plots": drawn,
            "groups": _linked(visit, errors.groups), "looked_at": errors.looked_at, "more": errors.more,
        },
    )  # fmt: skip


def _sentence(seen: Overview) -> str:
    waiting = sum(queue.waiting.number for queue in seen.queues)
    more = any(queue.waiting.more for queue in seen.queues)
    oldest_us = min((queue.oldest_due_us for queue in seen.queues if queue.oldest_due_us is not None), default=None)
    parts = [
        f"{many(len(seen.queues), 'queue')}{' and more' if seen.more_queues else ''}",
        f"{'more than ' if more else ''}{many(waiting, 'task')} waiting",
    ]
    if oldest_us is not None:
        parts.append(f"the oldest due for {span(seen.now_us - oldest_us)}")
    parts.append(f"{many(len(seen.dispatchers), 'dispatcher')} alive")
    return ", ".join(parts) + "."


async def queues(visit: Visit) -> Shown:
    """Show all queues."""
    return Shown(template="queues.html", values={"seen": await visit.insight.overview()})


async def queue(visit: Visit) -> Shown:
    """Show one queue."""
    seen = await visit.insight.overview()
    found = await visit.queue(visit.query("name"), seen)
    minutes = await visit.insight.minutes(queue_name=found.name, minute_count=_MINUTES)
    errors = await visit.insight.errors(queue_name=found.name, limit=5)
    state = "pull" if found.settings.mode == "pull" else "waiting"
    chosen = Filter(queue_names=(found.name,), states=(state,))  # type: ignore[arg-type]  # one of two literals
    page = await visit.insight.list(chosen, limit=20)
    return Shown(
        template="queue.html",
        values={
            "queue": found, "now_us": seen.now_us, "chosen": str(chosen),
            "plots": [plots.throughput(minutes), plots.latency(minutes), plots.errors(minutes)],
            "tasks": _listed(visit, page.tasks), "groups": _linked(visit, errors.groups, found.name),
            "looked_at": errors.looked_at, "more": errors.more,
        },
    )  # fmt: skip


async def tasks(visit: Visit) -> Shown:
    """Show the tasks that a filter chooses."""
    text, after = visit.query("filter").strip(), visit.query("after") or None
    values: dict[str, Any] = {"filter": text, "tasks": (), "after": None, "count": None, "problem": None}
    try:
        chosen = parse(text)
        refuse_to_tell(chosen, may_see=visit.may("admin"), may_act=visit.may("operate"))
        page = await visit.insight.list(chosen, after=after, limit=50)
        count = await visit.insight.count(chosen)
    except FilterError as error:
        return Shown(template="tasks.html", values={**values, "problem": str(error)}, status=400)
    values |= {"tasks": _listed(visit, page.tasks), "after": page.after, "count": count, "is_first": after is None}
    return Shown(template="tasks.html", values=values)


async def task(visit: Visit) -> Shown:
    """Show one task, and why it does not run."""
    [task_id] = visit.ids
    found, why = await visit.insight.task(task_id), await visit.insight.why(task_id)
    if found is None:
        raise NotFoundError(why.sentence)
    info, may_see = found.info, visit.may("admin")
    records = await visit.outbox.store.attempts(task_id)
    children = await visit.outbox.store.children(task_id, 50)
    told = partial(sentence_of, error=info.last_error, may_see=may_see)
    also = tuple(replace(each, sentence=told(each.sentence)) for each in why.also)
    return Shown(
        template="task.html",
        values={
            "task": found, "info": task_of(info, may_see=may_see), "url": url_of(info.url, may_see=may_see),
            "payload": payload_of(info, may_see=may_see), "headers": headers_of(info.headers, may_see=may_see),
            "why": replace(why, sentence=told(why.sentence), also=also),
            "attempts": [(record_of(each, may_see=may_see), answer_of(each, may_see=may_see)) for each in records],
            "children": _listed(visit, children),
        },
    )  # fmt: skip


async def task_delete(visit: Visit) -> Shown:
    """Ask whether a task is to be deleted."""
    [task_id] = visit.ids
    found = await visit.insight.task(task_id)
    if found is None:
        raise NotFoundError("There is no such task any more.")
    return Shown(template="task_delete.html", values={"info": found.info})


async def errors(visit: Visit) -> Shown:
    """Show the errors of dead tasks, and of those that wait for a retry, put together."""
    name = visit.query("queue", 200) or None
    found = await visit.insight.errors(queue_name=name, limit=50)
    groups = _linked(visit, found.groups, name)
    return Shown(
        template="errors.html",
        values={"groups": groups, "looked_at": found.looked_at, "more": found.more, "queue_name": name},
    )


async def cron(visit: Visit) -> Shown:
    """Show the cron entries with their next times."""
    entries = [(status, visit.cron.next_times(status.name)) for status in await visit.cron.entries()]
    return Shown(template="cron.html", values={"entries": entries})


async def processes(visit: Visit) -> Shown:
    """Show the processes."""
    return Shown(template="processes.html", values={"processes": await visit.insight.processes()})


async def log(visit: Visit) -> Shown:
    """Show what was done by hand."""
    text = visit.query("before")
    before = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
    listing = Operation(statement=partial(audit.listed, before=before, limit=_AUDIT_PAGE + 1), writes=False)
    entries = await listing.perform_async(visit.outbox)
    more = entries[_AUDIT_PAGE - 1].id if len(entries) > _AUDIT_PAGE else None
    return Shown(template="audit.html", values={"entries": entries[:_AUDIT_PAGE], "before": more})


async def queue_purge(visit: Visit) -> Shown:
    """Ask whether a queue is to be purged."""
    return Shown(template="queue_purge.html", values={"queue": await visit.queue(visit.query("name"))})


async def compose(_visit: Visit) -> Shown:
    """Show the form for a task."""
    return Shown(template="compose.html", values={"given": {}, "problem": None})


def _listed(visit: Visit, found: Sequence[TaskInfo]) -> list[tuple[TaskInfo, str]]:
    may_see = visit.may("admin")
    return [(task_of(each, may_see=may_see), url_of(each.url, may_see=may_see)) for each in found]


def _linked(
    visit: Visit, groups: Sequence[ErrorGroup], queue_name: str | None = None
) -> list[tuple[ErrorGroup, str | None]]:
    """Give groups as they may be shown, each with a filter for those who may act on it."""
    return [(_shown(visit, each), _filter_of(each, queue_name) if visit.may("operate") else None) for each in groups]


def _shown(visit: Visit, group: ErrorGroup) -> ErrorGroup:
    may_see = visit.may("admin")
    sample = error_of(group.sample, may_see=may_see)
    return replace(group, pattern=error_of(group.pattern, may_see=may_see), sample=sample)


def _filter_of(group: ErrorGroup, queue_name: str | None) -> str | None:
    """Give a filter for the dead tasks of a group: by the longest text that they have in common."""
    part = max(group.pattern.split("#"), key=len).strip()
    if not part or not group.dead_count:
        return None
    names = () if queue_name is None else (queue_name,)
    chosen = Filter(states=("dead",), errors=(part,), statuses=group.statuses or (0,), queue_names=names)
    try:
        return str(parse(str(chosen)))
    except FilterError:
        return None
