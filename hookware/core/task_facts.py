"""What is known of one task and of what could hold it back, as a value: what `why` answers from."""

from collections.abc import Sequence
from dataclasses import dataclass

from hookware.core.amounts import NONE, Count
from hookware.core.lifecycle import State
from hookware.core.overview import Process
from hookware.core.queue import DEFAULT_SETTINGS, QueueSettings
from hookware.core.retry import DEFAULT_RETRY, RetryOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFacts:
    """What is known of a task and its surroundings at one moment. Times are microseconds by the database's clock.

    Attributes:
        now_us: that moment.
        task_id: the task.
        state: what is stored of its life; None: there is no such task.
        name, queue_name, url, method: of the task.
        created_us, eta_us, ended_us, lease_until_us: its times.
        attempt_us: when the attempt that runs began, as far as is known.
        attempt_count, crash_count: its counts.
        last_status, last_error, dead_reason: what came of its last attempt.
        owner: who runs it.
        retry: how it is tried again.
        fair_key, limit_key, dedup_key: its keys.
        name_holder: another task that holds its name; of a task that is not there, what the name's row says.
        name_until_us: until when that name stays taken, if its task has ended.
        settings: its queue's, in force.
        paused, paused_us, paused_by: whether its queue is paused, since when and by whom.
        running: how many tasks of its queue run; `running_since_us`: since when the one that has run the longest.
        next_token_us: in how long the queue's rate lets the next task begin, 0: now; None: never.
        key_running: how many tasks with its limit key run; `key_holder`: one of them.
        twin_id: the task that stays of those with its dedup key, if that is another one.
        ahead: how many due tasks are to begin before it.
        processes: all that are known.
    """

    now_us: int
    task_id: int
    state: State | None = None
    name: str | None = None
    queue_name: str = ""
    url: str = ""
    method: str = "POST"
    created_us: int = 0
    eta_us: int = 0
    ended_us: int | None = None
    lease_until_us: int | None = None
    attempt_us: int | None = None
    attempt_count: int = 0
    crash_count: int = 0
    last_status: int | None = None
    last_error: str | None = None
    dead_reason: str | None = None
    owner: str | None = None
    retry: RetryOptions = DEFAULT_RETRY
    fair_key: str | None = None
    limit_key: str | None = None
    dedup_key: str | None = None
    name_holder: int | None = None
    name_until_us: int | None = None
    settings: QueueSettings = DEFAULT_SETTINGS
    paused: bool = False
    paused_us: int | None = None
    paused_by: str | None = None
    running: Count = NONE
    running_since_us: int | None = None
    next_token_us: int | None = 0
    key_running: int = 0
    key_holder: int | None = None
    twin_id: int | None = None
    ahead: Count = NONE
    processes: Sequence[Process] = ()

    @property
    def dispatchers(self) -> list[Process]:
        """The processes that run tasks and are alive."""
        return [process for process in self.processes if process.is_alive and process.dispatches]
