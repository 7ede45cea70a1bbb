"""Why a task does not run, said in a sentence with numbers: a pure function of what is known about it.

The order of the reasons is that of the claim (`store/sql/claim.py`): what is looked at first there is said first here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from hookware.core.amounts import Count, many, moment, span
from hookware.core.lifecycle import CANCELLED, State
from hookware.core.overview import Process
from hookware.core.task_facts import TaskFacts

CLOCK_US: Final = 5_000_000
"""By how much clocks may differ before it is said."""

_MOST_ERROR: Final = 200


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason why a task does not run: a short code, and the sentence."""

    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Why:
    """The answer: the reason that counts first, and what would hold the task back besides."""

    task_id: int
    code: str
    sentence: str
    also: tuple[Reason, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.sentence, *(f"Besides: {reason.sentence}" for reason in self.also)])


def why(facts: TaskFacts) -> Why:
    """Say why a task does not run; or that it runs, or has ended."""
    first, *others = _reasons(facts)
    return Why(facts.task_id, first.code, first.sentence, tuple(others))


def _reasons(facts: TaskFacts) -> list[Reason]:
    match facts.state:
        case None:
            return [_unknown(facts)]
        case State.PENDING:
            return [*_pending(facts)] or [_about_to_begin(facts)]
        case State.LEASED:
            return [_leased(facts)]
        case State.DEAD:
            return [*_dead(facts)]
        case State.COMPLETED:
            return [_completed(facts)]
        case State.PULL:
            return [_pull(facts)]


def _unknown(facts: TaskFacts) -> Reason:
    task = f"There is no task {facts.task_id}: "
    if facts.name is None:
        return Reason("unknown", f"{task}it has completed, or was deleted, or there never was one with this id.")
    until = facts.name_until_us
    taken = "" if until is None else f", which stays taken until {moment(until)}"
    return Reason("ended", f"{task}it has ended. Its name in queue {facts.queue_name} was {facts.name}{taken}.")


# Waiting.


def _pending(facts: TaskFacts) -> Iterator[Reason]:
    yield from _clock(facts)
    yield from _not_due(facts)
    if facts.paused:
        yield _paused(facts)
    yield from _name(facts)
    yield from _nobody(facts)
    if facts.eta_us <= facts.now_us:
        yield from _limits(facts)
        yield from _slowed(facts)
        yield from _slots(facts)
        yield from _order(facts)
    yield from _last_answer(facts)


def _clock(facts: TaskFacts) -> Iterator[Reason]:
    ahead_us = facts.created_us - facts.now_us
    if ahead_us > CLOCK_US:
        yield Reason(
            "clock",
            f"It was added at {moment(facts.created_us)} by the database's clock, which says {moment(facts.now_us)} "
            f"now: the clock was {span(ahead_us)} ahead then, or is that much behind now; the task waits for the time "
            "that was reckoned by it. Let it run now, or postpone it.",
        )
    elif (offset_us := clock_offset_us(facts.processes)) is not None:
        where = f"{span(abs(offset_us))} {'ahead of' if offset_us > 0 else 'behind'}"
        yield Reason(
            "clock",
            f"The database's clock says {moment(facts.now_us)}, which is {where} the clocks of the processes: tasks "
            f"with an eta= begin {'early' if offset_us > 0 else 'late'} by as much. Set it right.",
        )


def clock_offset_us(processes: Sequence[Process]) -> int | None:
    """Say by how much the database's clock is ahead of most living processes' clocks; None: by little."""
    offsets = sorted(process.clock_offset_us for process in processes if process.is_alive)
    middle = offsets[len(offsets) // 2] if offsets else 0
    return middle if abs(middle) > CLOCK_US else None


def _not_due(facts: TaskFacts) -> Iterator[Reason]:
    wait_us = facts.eta_us - facts.now_us
    if wait_us <= 0:
        return
    when = f"until {moment(facts.eta_us)}, in {span(wait_us)}"
    if facts.attempt_count == 0:
        yield Reason("not-due", f"It is not due {when}.")
        return
    limit = facts.retry.task_retry_limit
    of = f" of {limit + 1}" if limit is not None and facts.retry.task_age_limit is None else ""
    yield Reason(
        "retry",
        f"It waits for its attempt {facts.attempt_count + 1}{of} {when}, because the last one failed: {_error(facts)}.",
    )


def _error(facts: TaskFacts) -> str:
    text = " ".join((facts.last_error or "no error is known").split())
    return text if len(text) <= _MOST_ERROR else text[:_MOST_ERROR] + "…"


def _paused(facts: TaskFacts) -> Reason:
    by = f" by {facts.paused_by}" if facts.paused_by else ""
    since = "" if facts.paused_us is None else f" for {span(facts.now_us - facts.paused_us)}"
    return Reason("paused", f"Its queue {facts.queue_name} has been paused{by}{since}: resume it.")


def _name(facts: TaskFacts) -> Iterator[Reason]:
    if facts.name_holder is not None:
        until = facts.name_until_us
        whose = f"is held by task {facts.name_holder}" if until is None else f"is taken until {moment(until)}"
        yield Reason(
            "name",
            f"Its name {facts.name} {whose}: when its turn comes, it will be put aside as a duplicate and not run.",
        )
    if facts.twin_id is not None:
        yield Reason(
            "key",
            f"Task {facts.twin_id} waits with the same key {facts.dedup_key}: that one runs, and this one is removed.",
        )


def _nobody(facts: TaskFacts) -> Iterator[Reason]:
    if not facts.dispatchers:
        yield Reason("no-dispatcher", no_dispatcher(facts.processes, facts.now_us))


def no_dispatcher(processes: Sequence[Process], now_us: int) -> str:
    """Say that nobody runs tasks, and who did last."""
    storing = [process for process in processes if process.is_alive]
    gone = [process for process in processes if not process.is_alive and process.dispatches]
    text = "No process that runs tasks is alive"
    if gone:
        last = max(gone, key=lambda process: process.seen_us)
        text += f": the last one, {last.label}, was last seen {span(now_us - last.seen_us)} ago"
    else:
        text += ", and none has been seen for a day"
    if storing:
        one, more = "process with dispatch off only stores", "processes with dispatch off only store"
        text += f"; {many(len(storing), one, more)} them"
    return text + "."


def _limits(facts: TaskFacts) -> Iterator[Reason]:
    settings, most = facts.settings, facts.settings.max_concurrent_requests
    if most is not None and facts.running.number >= most:
        yield Reason("concurrency", f"{_saturated(facts, most)}: it begins when one of them ends.")
    if settings.rate is not None and facts.next_token_us != 0:
        if facts.next_token_us is None:
            yield Reason(
                "rate", f"The rate of its queue {facts.queue_name} is {settings.rate:g} a second: nothing begins."
            )
        else:
            yield Reason(
                "rate",
                f"The rate of its queue {facts.queue_name}, {settings.rate:g} a second, is used up: the next token "
                f"comes in {span(facts.next_token_us)}.",
            )
    if facts.limit_key and facts.key_running >= settings.limit_per_key:
        holder = "" if facts.key_holder is None else f", task {facts.key_holder} is one"
        yield Reason(
            "limit-key",
            f"{facts.key_running} of {settings.limit_per_key} tasks with its limit key {facts.limit_key} run{holder}: "
            "it begins when one of them ends.",
        )


def _saturated(facts: TaskFacts, most: int) -> str:
    since = facts.running_since_us
    oldest = "" if since is None else f", the oldest for {span(facts.now_us - since)}"
    return f"Its queue {facts.queue_name} is full: {facts.running} of {most} run{oldest}"


def _slowed(facts: TaskFacts) -> Iterator[Reason]:
    for process in facts.dispatchers:
        until_us = dict(process.slowed).get(facts.queue_name, 0)
        if until_us > facts.now_us:
            yield Reason(
                "slowed",
                f"The process {process.label} leaves its queue {facts.queue_name} alone for "
                f"{span(until_us - facts.now_us)} more, because a handler of it answered 503.",
            )


def _slots(facts: TaskFacts) -> Iterator[Reason]:
    alive = facts.dispatchers
    running, most = sum(each.running_count for each in alive), sum(each.concurrency for each in alive)
    if alive and running >= most:
        yield Reason(
            "slots",
            f"All slots are busy: {many(len(alive), 'process runs', 'processes run')} {running} of {most} tasks at "
            "once. "
            "Start more, or raise their concurrency=.",
        )


def _order(facts: TaskFacts) -> Iterator[Reason]:
    if not facts.ahead.number:
        return
    order = f"{many(facts.ahead, 'due task')} of its queue {facts.queue_name} {_comes(facts.ahead)} before it"
    if facts.fair_key:
        order += f", and those of other fair keys take turns with its {facts.fair_key}"
    yield Reason("order", f"{order}; it has been due for {span(facts.now_us - facts.eta_us)}.")


def _comes(count: Count) -> str:
    return "comes" if count == (1, False) else "come"


def _last_answer(facts: TaskFacts) -> Iterator[Reason]:
    if facts.last_status in (404, 405):
        yield Reason("wrong-url", wrong_url(facts.method, facts.url, facts.last_status))


def wrong_url(method: str, url: str, status: int) -> str:
    """Say that nothing answers a task's URL."""
    path = url.partition("?")[0]
    if status == 405:
        return (
            f"The last answer was 405: the path {path} is there, and takes no {method}. Give the task another method=."
        )
    return (
        f"The last answer was 404: no route and no handler of the app answers the path {path}. Correct its URL, or add "
        "one."
    )


def _about_to_begin(facts: TaskFacts) -> Reason:
    return Reason(
        "about-to-begin",
        f"Nothing holds it back: it has been due for {span(facts.now_us - facts.eta_us)}, and begins within a poll of "
        f"one of {many(len(facts.dispatchers), 'process', 'processes')}.",
    )


# Running.


def _leased(facts: TaskFacts) -> Reason:
    holder = next((process for process in facts.processes if process.owner == facts.owner), None)
    who = holder.label if holder is not None else _owner_label(facts.owner)
    left_us = (facts.lease_until_us or facts.now_us) - facts.now_us
    began = "" if facts.attempt_us is None else f" for {span(facts.now_us - facts.attempt_us)}"
    if left_us <= 0 or (holder is not None and not holder.is_alive):
        ended = f"ended {span(-left_us)} ago" if left_us <= 0 else f"ends in {span(left_us)}"
        return Reason(
            "lease-expired",
            f"The process {who} had it{began} and is gone, or frozen: its lease {ended}, and another process takes it "
            f"back then{'' if facts.dispatchers else '; but none that runs tasks is alive'}.",
        )
    return Reason(
        "running",
        f"It runs: the process {who} has had it{began}, in attempt {facts.attempt_count}; its lease holds for "
        f"{span(left_us)} more unless it is renewed.",
    )


def _owner_label(owner: str | None) -> str:
    parts = (owner or "").split("|")
    return f"{parts[1]} (pid {parts[4]})" if len(parts) == 6 else owner or "that is not known"


# Ended.


_WHY_DEAD: Final = {
    "retries": "its {attempts} have all failed, and its retry limit allows no more",
    "permanent": "its handler, or what it answered, said that trying again is of no use",
    "crashes": "{crashes} of the processes that ran it died, or froze",
    "undecodable": "its row cannot be decoded",
    "duplicate": "another task held its name when its turn came",
    CANCELLED: "somebody cancelled it while it ran",
}


def _dead(facts: TaskFacts) -> Iterator[Reason]:
    reason = facts.dead_reason or "not said"
    text = _WHY_DEAD.get(reason, f"the reason is {reason}")
    text = text.format(attempts=many(facts.attempt_count, "attempt"), crashes=facts.crash_count)
    ago = "" if facts.ended_us is None else f" for {span(facts.now_us - facts.ended_us)}"
    error = f" The last error: {_error(facts)}." if facts.last_error else ""
    yield Reason("dead", f"It has been dead{ago}, because {text}.{error} It runs again if you retry it.")
    yield from _last_answer(facts)


def _completed(facts: TaskFacts) -> Reason:
    ago = "" if facts.ended_us is None else f" {span(facts.now_us - facts.ended_us)} ago"
    return Reason(
        "completed", f"It has completed{ago}, in attempt {facts.attempt_count}, and is kept only to be looked at."
    )


def _pull(facts: TaskFacts) -> Reason:
    wait_us = facts.eta_us - facts.now_us
    if facts.paused:
        return _paused(facts)
    if wait_us <= 0:
        return Reason(
            "pull",
            f"It waits in the pull queue {facts.queue_name} for whoever leases it: no process runs such tasks by "
            "itself.",
        )
    if facts.attempt_count == 0:
        return Reason("not-due", f"It may be leased from {moment(facts.eta_us)} on, in {span(wait_us)}.")
    return Reason(
        "pull-leased", f"It is leased, for the {facts.attempt_count}. time: its lease ends in {span(wait_us)}."
    )
