"""What `Insight` gives of tasks: one in full, a page of a list, and how far an action on many has come."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hookware.core.retry import RetryOptions
from hookware.store.base import TaskInfo

Action = Literal["retry", "delete", "cancel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDetail:
    """One task in full. Times are microseconds by the database's clock.

    Attributes:
        info: what a list shows of it.
        now_us: when this was read.
        created_us: when it was added.
        first_attempt_us: when its first attempt began.
        ended_us: when it died or completed.
        lease_until_us: until when the lease of the attempt that runs holds, unless it is renewed.
        deadline_us: how long an attempt may take.
        retry: how it is tried again: its own options, or else its queue's.
        has_own_retry: whether these are its own.
        on_conflict: what is to become of others with its key.
    """

    info: TaskInfo
    now_us: int
    created_us: int
    first_attempt_us: int | None
    ended_us: int | None
    lease_until_us: int | None
    deadline_us: int
    retry: RetryOptions
    has_own_retry: bool = False
    on_conflict: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the tasks that a filter chooses, and from where on to look for more.

    A page costs the same however many tasks there are: where few of those looked at are meant, it has fewer than were
    asked for, or none, and there may be more all the same. `after` is None where there are none.
    """

    tasks: Sequence[TaskInfo]
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkProgress:
    """How far an action on many tasks has come.

    Attributes:
        action: what is done.
        filter: to which tasks, written as a filter.
        started_us: when it began, by the database's clock: what dies or is added later is left alone.
        done_count: how many tasks it has been done to.
        left_count: how many that were chosen were left alone, because they were changing just then, or run.
        is_complete: it has come to the end.
        token: what `resume=` takes to go on from here, in whatever process.
    """

    action: Action
    filter: str
    started_us: int
    done_count: int
    left_count: int
    is_complete: bool
    token: str
