"""What is wrong with an installation, found in its overview: pure functions, one for each known trouble.

A healthy installation has no findings.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from hookware.core.amounts import NONE, Count, many, moment, span
from hookware.core.overview import Errors, Finding, Overview, Process, QueueOverview, Severity
from hookware.core.statistics import Minutes
from hookware.core.why import CLOCK_US, clock_offset_us, no_dispatcher, wrong_url

LATE_US: Final = 10_000_000
"""How long a due task may wait before it is said."""

_FUTURE_US: Final = 60_000_000
_BEHIND_US: Final = 60_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What the findings are found in.

    Attributes:
        overview: the queues and processes.
        errors: what fails.
        crashed: how many tasks are dead because their processes died under them.
        running_since_us: since when the longest running task of a queue has run, by queue.
        earlier: what ended in the ten minutes before the last five, by queue.
        clock_offset_us: by how much the database's clock is ahead of that of the process that asks.
        latest_us: the latest time that anything was written down at, by the database's clock of then.
        missing_indexes: the indexes that the tables should have.
    """

    overview: Overview
    errors: Errors = field(default_factory=lambda: Errors((), 0))
    crashed: Count = NONE
    running_since_us: dict[str, int] = field(default_factory=dict)
    earlier: dict[str, Minutes] = field(default_factory=dict)
    clock_offset_us: int = 0
    latest_us: int | None = None
    missing_indexes: tuple[str, ...] = ()


def findings(given: Installation) -> list[Finding]:
    """Give all that is wrong, the worst first."""
    found = [
        *_clock(given),
        *_no_dispatcher(given),
        *(each for queue in given.overview.queues for each in _queue(queue, given)),
        *_slots(given),
        *_wrong_urls(given.errors),
        *_crashed(given.crashed),
        *_indexes(given),
        *_versions(given.overview.processes),
    ]
    order: list[Severity] = ["error", "warning", "note"]
    return sorted(found, key=lambda each: order.index(each.severity))


def broken_tables(sentences: Sequence[str]) -> list[Finding]:
    """Give the findings where tables or columns are missing: then nothing else can be found."""
    next_step = (
        "Start the app once with create_tables=True where a table is missing, or run `hookware db upgrade`, or make a "
        "migration (alembic revision --autogenerate) and run it."
    )
    return [Finding(severity="error", code="schema", sentence=each, next_step=next_step) for each in sentences]


def _indexes(given: Installation) -> Iterator[Finding]:
    if given.missing_indexes:
        yield Finding(
            severity="warning", code="indexes",
            sentence=f"The database has no index {', '.join(given.missing_indexes)}: hookware works, and becomes slow "
            "with many tasks.",
            next_step="Make a migration (alembic revision --autogenerate) and run it.",
        )  # fmt: skip


def _clock(given: Installation) -> Iterator[Finding]:
    now_us, processes = given.overview.now_us, given.overview.processes
    offset_us = clock_offset_us(processes)
    if offset_us is None and not any(process.is_alive for process in processes):
        offset_us = given.clock_offset_us if abs(given.clock_offset_us) > CLOCK_US else None
    if offset_us is not None:
        where = f"{span(abs(offset_us))} {'ahead of' if offset_us > 0 else 'behind'}"
        yield Finding(
            severity="error", code="clock",
            sentence=f"The database's clock says {moment(now_us)}, which is {where} the clocks of the processes: tasks "
            f"with an eta= begin {'too early' if offset_us > 0 else 'too late'} by as much.",
            next_step="Set the clock of the database's host right (NTP), in small steps.",
        )  # fmt: skip
        return
    if given.latest_us is not None and given.latest_us - now_us > _FUTURE_US:
        yield Finding(
            severity="error", code="clock",
            sentence=f"The database's clock says {moment(now_us)}, and something was written down at "
            f"{moment(given.latest_us)} by it: it was {span(given.latest_us - now_us)} in the future then, or is "
            "behind now. Tasks that were added meanwhile wait for times that were reckoned by it.",
            next_step="Set the clock right, and postpone or run now what waits: state:scheduled lists it.",
        )  # fmt: skip
    for process in processes:
        if process.is_alive and abs(process.clock_offset_us) > CLOCK_US:
            side = "behind" if process.clock_offset_us > 0 else "ahead of"
            yield Finding(
                severity="warning", code="host-clock",
                sentence=f"The clock of {process.label} is {span(abs(process.clock_offset_us))} {side} the database's.",
                next_step="Set it right: an eta= that is reckoned there is as wrong.",
            )  # fmt: skip


def _no_dispatcher(given: Installation) -> Iterator[Finding]:
    overview = given.overview
    if overview.dispatchers:
        return
    waiting = Count(0)
    for queue in overview.queues:
        if queue.settings.mode == "push":
            waiting = waiting.plus(queue.waiting)
    waits = f" {many(waiting, 'task waits', 'tasks wait')}." if waiting.number else ""
    yield Finding(
        severity="error" if waiting.number else "warning", code="no-dispatcher",
        sentence=no_dispatcher(overview.processes, overview.now_us) + waits,
        next_step="Start the app with dispatch on, or `hookware dispatch main:app`; if a server runs, its "
        "lifespan must be on.",
    )  # fmt: skip


def _queue(queue: QueueOverview, given: Installation) -> Iterator[Finding]:
    if queue.paused:
        if queue.waiting.number:
            yield _paused(queue, given.overview.now_us)
        return
    late_us = 0 if queue.oldest_due_us is None else given.overview.now_us - queue.oldest_due_us
    if late_us <= LATE_US or queue.settings.mode == "pull" or not given.overview.dispatchers:
        return
    limited = [*_limited(queue, given, late_us)]
    yield from limited or _behind(queue, given, late_us)


def _paused(queue: QueueOverview, now_us: int) -> Finding:
    by = f" by {queue.paused_by}" if queue.paused_by else ""
    since = "" if queue.paused_us is None else f" for {span(now_us - queue.paused_us)}"
    return Finding(
        severity="warning", code="paused", queue_name=queue.name,
        sentence=f"The queue {queue.name} has been paused{by}{since}, and "
        f"{many(queue.waiting, 'task waits', 'tasks wait')} in it.",
        next_step="Resume it when what it was paused for is over.",
    )  # fmt: skip


def _limited(queue: QueueOverview, given: Installation, late_us: int) -> Iterator[Finding]:
    most, since = queue.most_running, given.running_since_us.get(queue.name)
    wait = f"{many(queue.due, 'due task waits', 'due tasks wait')}, the oldest for {span(late_us)}"
    if most is not None and queue.running.number >= most:
        longest = "" if since is None else f", the oldest for {span(given.overview.now_us - since)}"
        yield Finding(
            severity="warning", code="concurrency", queue_name=queue.name,
            sentence=f"The queue {queue.name} is full: {queue.running} of {most} run{longest}, and {wait}.",
            next_step="See why those that run take so long, or raise max_concurrent_requests.",
        )  # fmt: skip
    elif queue.token_count == 0:
        yield Finding(
            severity="warning", code="rate", queue_name=queue.name,
            sentence=f"The queue {queue.name} is held back by its rate of {queue.settings.rate:g} a second: {wait}.",
            next_step="Raise the rate, if what it protects can take more." if queue.settings.rate
            else "Give it a rate above 0, or pause it instead.",
        )  # fmt: skip


def _behind(queue: QueueOverview, given: Installation, late_us: int) -> Iterator[Finding]:
    """Find a queue that falls behind: what waits has waited long, and longer than before."""
    ended, wait = queue.last_minutes.ended_count, queue.last_minutes.wait.mean_us or 0
    if late_us <= _BEHIND_US:
        return
    before = given.earlier.get(queue.name, Minutes()).wait.mean_us or 0
    grew = f" In the last minutes they began {span(wait)} late, before that {span(before)}." if ended else ""
    pace = (
        f"{many(ended, 'attempt')} ended in the last five minutes" if ended else "none ended in the last five minutes"
    )
    yield Finding(
        severity="warning" if ended else "error", code="backlog" if ended else "stuck", queue_name=queue.name,
        sentence=f"The queue {queue.name} falls behind: "
        f"{many(queue.due, 'due task waits', 'due tasks wait')}, the oldest for "
        f"{span(late_us)}, and {pace}.{grew}",
        next_step="Start more processes, raise their concurrency=, or ask of one of these tasks why it does not run.",
    )  # fmt: skip


def _slots(given: Installation) -> Iterator[Finding]:
    overview = given.overview
    alive = overview.dispatchers
    running, most = sum(each.running_count for each in alive), sum(each.concurrency for each in alive)
    late = [
        queue for queue in overview.queues
        if queue.oldest_due_us is not None and not queue.paused and queue.settings.mode == "push"
        and overview.now_us - queue.oldest_due_us > LATE_US
        and (queue.most_running is None or queue.running.number < queue.most_running)
    ]  # fmt: skip
    if alive and running >= most and late:
        oldest = min(queue.oldest_due_us or 0 for queue in late)
        yield Finding(
            severity="warning", code="slots",
            sentence=f"All slots are busy: "
            f"{many(len(alive), 'process runs', 'processes run')} {running} of {most} tasks at "
            f"once, and due tasks wait, the oldest for {span(overview.now_us - oldest)}.",
            next_step="Start more processes, or raise their concurrency=.",
        )  # fmt: skip


def _wrong_urls(errors: Errors) -> Iterator[Finding]:
    for group in errors.groups:
        for status in {404, 405} & {*group.statuses}:
            sentence = wrong_url("such method", group.urls[0] if group.urls else "", status)
            yield Finding(
                severity="error", code="wrong-url", queue_name=group.queue_names[0] if group.queue_names else None,
                sentence=f"{many(group.count, 'task')} of queue {', '.join(group.queue_names[:5])} "
                f"({group.dead_count} dead) cannot be delivered. {sentence}",
                next_step="Then retry the dead ones: state:dead status:" + str(status) + ".",
            )  # fmt: skip


def _crashed(crashed: Count) -> Iterator[Finding]:
    if crashed.number:
        yield Finding(
            severity="warning", code="poison",
            sentence=f"{many(crashed, 'task')} took down {'the processes' if crashed.more else 'processes'} that ran "
            f"{'it' if crashed == (1, False) else 'them'}, and {'is' if crashed == (1, False) else 'are'} dead.",
            next_step="See what they do (memory, native code, a timeout that kills): state:dead reason:crashes lists "
            "them.",
        )  # fmt: skip


def _versions(processes: Sequence[Process]) -> Iterator[Finding]:
    versions = sorted({process.version for process in processes if process.is_alive})
    if len(versions) > 1:
        yield Finding(
            severity="note", code="versions",
            sentence=f"The living processes run different versions of hookware: {', '.join(versions)}.",
            next_step="Finish the deploy.",
        )  # fmt: skip
