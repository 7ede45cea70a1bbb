"""What the store in memory keeps, as values."""

from dataclasses import dataclass, replace

from hookware.core.lifecycle import Die, Retry, State
from hookware.core.task import LeasedTask, NewTask, Progress
from hookware.store.base import TaskInfo, stored_error

Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A stored task; a change is a new one."""

    task: NewTask
    eta_us: int
    added: tuple[int, int] = (0, 0)
    state: State = State.PENDING
    fence: int = 0
    owner: str | None = None
    lease_until_us: int = 0
    attempt_count: int = 0
    crash_count: int = 0
    first_attempt_us: int | None = None
    last_status: int | None = None
    last_error: str | None = None
    dead_reason: str | None = None
    ended_us: int = 0
    progress: Progress | None = None
    record_count: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether nothing happens to the task by itself any more."""
        return self.state in (State.DEAD, State.COMPLETED)

    @property
    def key(self) -> Key | None:
        """What is unique: the queue's name with the task's, if it has one."""
        return None if self.task.name is None else (self.task.queue_name, self.task.name)


@dataclass(frozen=True, slots=True)
class Holder:
    """The task that has won a name; with `expires_us` the task is gone, and this is its tombstone."""

    task_id: int
    expires_us: int | None = None

    def holds(self, now_us: int) -> bool:
        """Say whether the name is not free."""
        return self.expires_us is None or self.expires_us > now_us


def attempted(row: Row, decision: Retry | Die) -> Row:
    """Give the row after an attempt that did not complete it."""
    return replace(
        row,
        crash_count=row.crash_count + decision.crashed,
        last_status=row.last_status if decision.status is None else decision.status,
        last_error=stored_error(decision.error),
    )


def leased(row: Row, now_us: int) -> LeasedTask:
    """Give the leased task that a row describes."""
    task = row.task
    return LeasedTask(
        id=task.id,
        fence=row.fence,
        queue_name=task.queue_name,
        name=task.name,
        method=task.method,
        url=task.url,
        headers=task.headers,
        body=task.body,
        eta_us=row.eta_us,
        attempt_count=row.attempt_count,
        crash_count=row.crash_count,
        first_attempt_us=now_us if row.first_attempt_us is None else row.first_attempt_us,
        claimed_us=now_us,
        last_status=row.last_status,
        retry=task.retry,
        deadline_us=task.deadline_us,
        lease_until_us=row.lease_until_us,
        depth=task.lineage.depth,
        record_count=row.record_count,
        owner=row.owner,
    )


def info(row: Row) -> TaskInfo:
    """Give a row as people see it."""
    task = row.task
    return TaskInfo(
        id=task.id,
        queue_name=task.queue_name,
        name=task.name,
        method=task.method,
        url=task.url,
        headers=task.headers,
        body=task.body,
        state=row.state,
        eta_us=row.eta_us,
        attempt_count=row.attempt_count,
        crash_count=row.crash_count,
        last_status=row.last_status,
        last_error=row.last_error,
        dead_reason=row.dead_reason,
        owner=row.owner,
        priority=task.keys.priority,
        tag=task.tag,
        dedup_key=task.keys.dedup_key,
        fair_key=task.keys.fair_key,
        limit_key=task.keys.limit_key,
        depth=task.lineage.depth,
        progress=row.progress,
        origin=task.lineage.origin,
        parent_id=task.lineage.parent_id,
    )
