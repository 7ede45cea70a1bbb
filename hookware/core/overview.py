"""An installation as people see it: its queues, its processes, and its errors. Every count stops at a cap."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from hookware.core.amounts import NONE, Count
from hookware.core.queue import QueueSettings
from hookware.core.statistics import NO_MINUTES, Minutes

BEAT_SECONDS: Final = 20.0
"""How often a process says that it is alive."""

ALIVE_US: Final = 65_000_000
"""How long after its last word a process counts as alive: three of them may fail to come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process with a Hookware, as it last spoke. Times are microseconds by the database's clock.

    Attributes:
        owner: what its leases say, unlike any other process that was or will be.
        host: the name of its host.
        pid: its number there.
        version: hookware's version.
        started_us: when its loops started.
        seen_us: when it last spoke.
        concurrency: how many tasks it may run at once.
        running_count: how many it ran when it last spoke.
        dispatches: whether it runs tasks, or only stores them.
        clock_offset_us: by how much the database's clock was ahead of its own, then.
        slowed: the queues that it leaves alone for a while because their handlers answered 503, each until when.
        gone_us: since when it is gone, at the latest; None: it is alive.
    """

    owner: str
    host: str
    pid: int
    version: str
    started_us: int
    seen_us: int
    concurrency: int
    running_count: int
    dispatches: bool
    clock_offset_us: int = 0
    slowed: tuple[tuple[str, int], ...] = ()
    gone_us: int | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it has spoken a short time ago, and is not known to have died."""
        return self.gone_us is None

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.host} (pid {self.pid})"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOverview:
    """A queue as it is now, in all processes together.

    Attributes:
        name: the queue.
        settings: its settings, with what was changed at run time.
        is_configured: the process that asked has it in its configuration.
        overrides: the names of the settings that were changed at run time.
        paused: it waits until it is resumed.
        paused_us: since when; None where that is not known.
        paused_by: who paused it, where that was said.
        due: tasks that wait and are due; of a pull queue, those that may be leased.
        scheduled: tasks that wait for their time, or for that of their retry; of a pull queue, those that are leased.
        running: tasks that run under a lease which has not ended.
        dead: dead tasks.
        completed: finished tasks that are kept.
        oldest_due_us: when the first of those that are due came due; None: none is.
        next_due_us: when the next of the others is; None: there is none.
        token_count: how many tasks the rate lets begin at once now; None: there is no rate.
        last_minutes: what ended in the last five whole minutes and the one that has begun.
    """

    name: str
    settings: QueueSettings
    is_configured: bool = False
    overrides: tuple[str, ...] = ()
    paused: bool = False
    paused_us: int | None = None
    paused_by: str | None = None
    due: Count = NONE
    scheduled: Count = NONE
    running: Count = NONE
    dead: Count = NONE
    completed: Count = NONE
    oldest_due_us: int | None = None
    next_due_us: int | None = None
    token_count: int | None = None
    last_minutes: Minutes = NO_MINUTES

    @property
    def waiting(self) -> Count:
        """Tasks that wait, due or not."""
        return self.due.plus(self.scheduled)

    @property
    def most_running(self) -> int | None:
        """How many may run at once; None: there is no limit but that of the processes."""
        return self.settings.max_concurrent_requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The whole installation at one moment.

    Attributes:
        now_us: that moment, by the database's clock.
        queues: its queues, by name.
        more_queues: there are more than are listed.
        processes: its processes, the living ones first.
        last_minutes: what ended in all queues in the last five whole minutes and the one that has begun.
        cap: where the counts stop.
    """

    now_us: int
    queues: Sequence[QueueOverview]
    processes: Sequence[Process] = ()
    more_queues: bool = False
    last_minutes: Minutes = NO_MINUTES
    cap: int = 10_000

    @property
    def dispatchers(self) -> list[Process]:
        """The processes that run tasks and are alive."""
        return [process for process in self.processes if process.is_alive and process.dispatches]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorGroup:
    """Errors that differ in nothing but numbers, of dead tasks and of those that wait for a retry.

    Attributes:
        pattern: what they have in common, with "#" for numbers and ids.
        sample: the latest of them, as it was stored.
        dead_count, retrying_count: of how many tasks, among those that were looked at.
        task_ids: some of these tasks, at most ten.
        queue_names: in which queues.
        urls: of which paths, at most ten.
        statuses: what was answered, where something was.
        reasons: why the dead ones are dead.
        latest_us: when the latest of them died, or is to be tried again.
    """

    pattern: str
    sample: str
    dead_count: int
    retrying_count: int
    task_ids: tuple[int, ...]
    queue_names: tuple[str, ...]
    urls: tuple[str, ...]
    statuses: tuple[int, ...]
    reasons: tuple[str, ...]
    latest_us: int

    @property
    def count(self) -> int:
        """Of how many tasks in all."""
        return self.dead_count + self.retrying_count


@dataclass(frozen=True, slots=True)
class Errors:
    """Groups of errors, the largest first; `looked_at` is how many tasks they were found among, `more`: not all."""

    groups: Sequence[ErrorGroup]
    looked_at: int
    more: bool = False


Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        severity: "error": tasks do not run that should; "warning": they soon may not; "note": worth knowing.
        code: which of the known troubles it is, such as "paused" or "no-dispatcher".
        sentence: what is the matter, with numbers.
        next_step: what to do about it.
        queue_name: the queue that it is about, if it is about one.
    """

    severity: Severity
    code: str
    sentence: str
    next_step: str
    queue_name: str | None = None

    def __str__(self) -> str:
        return f"{self.severity}: {self.sentence} {self.next_step}"
