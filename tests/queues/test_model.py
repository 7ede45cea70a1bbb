"""Random sequences of calls on a push queue and a pull queue agree with a small model of App Engine's.

The model knows App Engine's rules, and four of ours: a paused queue leases nothing; of tasks with one ETA the one that
was added first comes first; an unnamed task leaves no tombstone; and a task run now is due now, not at time 0.
One of App Engine's that may surprise: the retry options of a pull task count for nothing, only those of its queue.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookware import Hookware, Queue, QueueStatistics, Task, TaskRetryOptions
from hookware.core.task import PULL
from hookware.taskqueue import (
    MAX_TASKS_PER_ADD,
    BadTaskStateError,
    DuplicateTaskNameError,
    Error,
    InvalidQueueModeError,
    InvalidTaskError,
    QueuePausedError,
    TaskAlreadyExistsError,
    TaskLeaseExpiredError,
    TombstonedTaskError,
    TooManyTasksError,
)
from tests.databases import EVERY_DATABASE, Database
from tests.queues.site import SECOND_US, SteppedEnv

MOST_SEQUENCES = 10_000
NAMES = ("a", "b", "c")
TAGS = (None, "s", "t")
SECONDS = (0, 1, 2)


@dataclass
class Stored:
    """A task in the model."""

    name: str
    order: int
    eta_us: int
    tag: str | None = None
    leases: int = 0


@dataclass
class Model:
    """One queue of App Engine's."""

    now_us: int
    limit: int | None = None
    tasks: dict[str, Stored] = field(default_factory=dict)
    archive: set[str] = field(default_factory=set)
    paused: bool = False
    orders: Iterator[int] = field(default_factory=count)

    def add(self, name: str) -> type[Exception] | None:
        if name in self.tasks:
            return TaskAlreadyExistsError
        return TombstonedTaskError if name in self.archive else None

    def put(self, name: str, named: bool, seconds: int, tag: str | None) -> None:
        self.tasks[name] = Stored(name, next(self.orders), self.now_us + seconds * SECOND_US, tag)
        if named:
            self.archive.add(name)

    def lease(self, seconds: int, most: int, tag: str | None, by_tag: bool) -> list[tuple[str, str | None, int, int]]:
        due = sorted(
            (task for task in self.tasks.values() if task.eta_us < self.now_us), key=lambda t: (t.eta_us, t.order)
        )
        if self.paused or not due:
            return []
        if not by_tag:
            chosen = due[:most]
        elif tag or due[0].tag:
            chosen = [task for task in due if task.tag == (tag or due[0].tag)][:most]
        else:
            chosen = [task for task in due[:most] if not task.tag]
        leased = []
        for task in chosen:
            if self.limit is not None and task.leases >= self.limit:
                del self.tasks[task.name]
                continue
            task.leases += 1
            task.eta_us = self.now_us + seconds * SECOND_US
            leased.append((task.name, task.tag, task.leases, task.eta_us))
        return leased

    def modify(self, name: str, token_us: int, seconds: int) -> type[Exception] | int:
        if self.paused:
            return QueuePausedError
        if name not in self.tasks:
            return TombstonedTaskError if name in self.archive else Error
        task = self.tasks[name]
        if task.eta_us != token_us or task.eta_us < self.now_us:
            return TaskLeaseExpiredError
        task.eta_us = self.now_us + seconds * SECOND_US
        return task.eta_us

    def delete(self, name: str) -> bool:
        return self.tasks.pop(name, None) is not None

    def run_now(self, name: str) -> bool:
        if name in self.tasks:
            self.tasks[name].eta_us = min(self.tasks[name].eta_us, self.now_us)
        return name in self.tasks


def batch_refusal(tasks: list[Task], is_pull: bool) -> type[Exception] | None:
    """Say which error App Engine's client, and then its service, has for the whole call."""
    if len({task.method == PULL for task in tasks}) > 1:
        return InvalidTaskError
    if len(tasks) > MAX_TASKS_PER_ADD:
        return TooManyTasksError
    for n, task in enumerate(tasks):
        if task.name and task.name in [earlier.name for earlier in tasks[:n]]:
            return DuplicateTaskNameError
        if task.was_enqueued or any(task is earlier for earlier in tasks[:n]):
            return BadTaskStateError
    return InvalidQueueModeError if tasks and (tasks[0].method == PULL) != is_pull else None


def refusal_of(queue: Queue, tasks: Iterable[Task]) -> type[Exception] | None:
    try:
        queue.add(tasks)
    except Error as error:
        return type(error)
    return None


@dataclass
class Pair:
    """A queue and its model, and the tasks that were leased or added."""

    queue: Queue
    model: Model
    is_pull: bool
    seen: list[Task] = field(default_factory=list)

    def add(self, name: str | None, seconds: int, tag: str | None, limit: int | None) -> None:
        options: dict[str, Any] = {"method": PULL, "tag": tag} if self.is_pull else {"url": "/w"}
        if limit is not None:
            options["retry_options"] = TaskRetryOptions(task_retry_limit=limit)
        task = Task("x" if self.is_pull else None, name=name, countdown=seconds, **options)
        expected = self.model.add(name) if name else None
        if expected is not None:
            with pytest.raises(expected):
                self.queue.add(task)
            return
        self.queue.add(task)
        self.model.put(str(task.name), name is not None, seconds, tag if self.is_pull else None)
        self.seen.append(task)

    def add_batch(self, wanted: list[tuple[str, str | None]], as_iterator: bool) -> None:
        """Add several at once, of which some may be of the other kind, added before, or there twice or too many."""
        tasks = [task for kind, name in wanted for task in self.made(kind, name)]
        was_enqueued = [task.was_enqueued for task in tasks]
        # Of an iterator, nobody looks at more than it takes to refuse it.
        expected = batch_refusal(tasks[: MAX_TASKS_PER_ADD + 1] if as_iterator else tasks, self.is_pull)
        names = [task.name for task in tasks]
        if expected is None:
            outcomes = [self.model.add(name) if name else None for name in names]
            expected = next((error for error in reversed(outcomes) if error is not None), None)
            was_enqueued = [outcome is None for outcome in outcomes]
        assert refusal_of(self.queue, iter(tasks) if as_iterator else tasks) is expected
        assert [task.was_enqueued for task in tasks] == was_enqueued
        for task, name in zip(tasks, names, strict=True):
            if task.was_enqueued and task not in self.seen:
                self.model.put(str(task.name), name is not None, 0, None)
                self.seen.append(task)

    def made(self, kind: str, name: str | None) -> list[Task]:
        if kind == "seen":
            return self.seen[-1:]
        is_pull = self.is_pull != (kind == "other")
        count = 101 if kind == "many" else 1
        new = [Task("x", method=PULL, name=name) if is_pull else Task(url="/w", name=name) for _ in range(count)]
        return new * 2 if kind == "twice" else new

    def lease(self, seconds: int, most: int, tag: str | None, by_tag: bool) -> None:
        if not self.is_pull:
            return
        call = self.queue.lease_tasks_by_tag if by_tag else self.queue.lease_tasks
        tasks = call(seconds, most, tag) if by_tag else call(seconds, most)  # type: ignore[arg-type]  # one of two
        leased = [(task.name, task.tag, task.retry_count, round(task.eta_posix * 1e6)) for task in tasks]
        assert leased == self.model.lease(seconds, most, tag, by_tag)
        self.seen.extend(tasks)

    def modify(self, which: int, seconds: int) -> None:
        if not (self.is_pull and self.seen):
            return
        task = self.seen[which % len(self.seen)]
        token_us = task._due_us()
        expected = self.model.modify(str(task.name), token_us, seconds)
        if isinstance(expected, int):
            self.queue.modify_task_lease(task, seconds)
            assert task._due_us() == expected
            return
        with pytest.raises(expected) as caught:
            self.queue.modify_task_lease(task, seconds)
        assert type(caught.value) is expected

    def delete(self, which: int) -> None:
        names = [*NAMES, *dict.fromkeys(str(task.name) for task in self.seen)]
        name = names[which % len(names)]
        assert self.queue.delete_tasks_by_name(name).was_deleted == self.model.delete(name)

    def run_now(self, which: int) -> None:
        if self.seen:
            name = str(self.seen[which % len(self.seen)].name)
            assert self.queue.run_now(Task(name=name)) == self.model.run_now(name)

    def purge(self) -> None:
        self.queue.purge()
        self.model.tasks.clear()

    def pause(self, paused: bool) -> None:
        (self.queue.pause if paused else self.queue.resume)()
        self.model.paused = paused
        assert self.queue.is_paused == paused

    def check(self) -> None:
        numbers = QueueStatistics.fetch(self.queue)
        assert numbers.tasks == len(self.model.tasks)
        assert numbers.oldest_eta_usec == min((task.eta_us for task in self.model.tasks.values()), default=None)


_which = st.integers(0, 30)
STEPS = st.one_of(
    st.tuples(
        st.just("add"), st.sampled_from((None, *NAMES)), st.sampled_from(SECONDS), st.sampled_from(TAGS),
        st.sampled_from((None, None, 0, 1, 2)),
    ),
    st.tuples(
        st.just("add_batch"),
        st.lists(
            st.tuples(
                st.sampled_from(("new", "new", "new", "seen", "other", "twice", "many")),
                st.sampled_from((None, None, *NAMES)),
            ),
            max_size=4,
        ),
        st.booleans(),
    ),
    st.tuples(
        st.just("lease"), st.sampled_from(SECONDS), st.integers(1, 3), st.sampled_from((*TAGS, "")), st.booleans()
    ),
    st.tuples(st.just("modify"), _which, st.sampled_from(SECONDS)),
    st.tuples(st.just("delete"), _which),
    st.tuples(st.just("run_now"), _which),
    st.tuples(st.just("purge")),
    st.tuples(st.just("pause"), st.sampled_from((False, False, True))),
    st.tuples(st.just("wait"), st.sampled_from((0, 1, SECOND_US, SECOND_US + 1))),
)  # fmt: skip


class Ground:
    """A Hookware with as many queues as there are sequences: each has two of its own."""

    def __init__(self, hookware: Hookware, env: SteppedEnv) -> None:
        self.hookware, self.env = hookware, env
        self._numbers = iter(range(MOST_SEQUENCES))

    def pairs(self, limit: int | None) -> tuple[Pair, Pair]:
        """Give a pull queue with this retry limit, and a push queue."""
        number = next(self._numbers)
        if limit is not None:
            Queue(f"pull-{number}").update(retry_parameters=TaskRetryOptions(task_retry_limit=limit))
        return (
            Pair(Queue(f"pull-{number}"), Model(self.env.time_us, limit), is_pull=True),
            Pair(Queue(f"push-{number}"), Model(self.env.time_us), is_pull=False),
        )


@contextmanager
def ground_on(database: Database) -> Iterator[Ground]:
    engine, env = database.engine(), SteppedEnv()
    queues = [Queue(f"pull-{n}", mode="pull") for n in range(MOST_SEQUENCES)]
    hookware = Hookware(engine=engine, env=env, queues=queues, unknown_queues="allow", dispatch=False)
    outbox = hookware._outbox
    outbox.own_clock = outbox.store._clock = env.clock
    outbox.store._stamp = (lambda: None) if database.is_sqlite else env.now_us
    outbox.running = True
    yield Ground(hookware, env)
    outbox.running = False
    outbox.runner.dispose()
    engine.dispose()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@EVERY_DATABASE
def test_queues_do_what_the_model_does(database: Database) -> None:
    with ground_on(database) as ground:

        @settings(suppress_health_check=[HealthCheck.too_slow])
        @given(st.sampled_from((None, 0, 1, 2)), st.lists(st.tuples(st.sampled_from((0, 0, 1)), STEPS), max_size=25))
        def agree(limit: int | None, steps: list[tuple[int, tuple[Any, ...]]]) -> None:
            pairs = ground.pairs(limit)
            for which, (step, *arguments) in steps:
                if step == "wait":
                    ground.env.time_us += arguments[0]
                    for pair in pairs:
                        pair.model.now_us = ground.env.time_us
                else:
                    getattr(pairs[which], step)(*arguments)
            for pair in pairs:
                pair.check()

        agree()
