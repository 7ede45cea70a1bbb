"""The store in memory: a fake that keeps the contract exactly, for tests and simulations. Nothing in it is durable."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from hookware.core.dedup import Waiting, survivors
from hookware.core.history import AttemptRecord
from hookware.core.lifecycle import CANCELLED, Complete, Die, Release, Retry, State
from hookware.core.queue import QueueSettings
from hookware.core.retention import Retention, retention
from hookware.core.task import Birth, Lease, LeasedTask, NewTask, Progress
from hookware.store.base import LATEST_US, AddResult, Claim, Claimed, Settlement, TaskInfo
from hookware.store.memory_attempts import Attempts
from hookware.store.memory_claim import Choosing, Queues
from hookware.store.memory_rows import Holder, Key, Row, attempted, info, leased


class MemoryStore:
    """Tasks in dicts, behind a lock: `renew` comes from another thread.

    Args:
        clock_us: the time by which everything here happens.
        fp: called with the name of each failpoint, the same ones as in the SQL store; what it raises before
            "committed" undoes the call.
        tombstone_us: how long the name of a finished task stays taken.
        queues: the configured settings, by queue.
    """

    def __init__(
        self,
        clock_us: Callable[[], int],
        *,
        fp: Callable[[str], None] = lambda _name: None,
        tombstone_us: int,
        queues: Mapping[str, QueueSettings] | None = None,
    ) -> None:
        self._clock_us = clock_us
        self._fp = fp
        self._tombstone_us = tombstone_us
        self._lock = threading.Lock()
        self._rows: dict[int, Row] = {}
        self._names: dict[Key, Holder] = {}
        self._attempts = Attempts()
        self._queues = Queues(queues or {})

    def insert(self, tasks: Iterable[NewTask], birth: Birth | None = None) -> None:
        """Put tasks in as a committed transaction of the user's does: their names are not won yet."""
        with self._lock:
            for task in tasks:
                self._insert(task, birth)

    async def add(self, tasks: Sequence[NewTask], birth: Birth | None = None) -> list[AddResult]:
        """Insert tasks and win their names."""
        self._fp("add.before")
        with self._lock:
            results = [self._add(task, birth) for task in tasks]
        self._fp("add.committed")
        return results

    async def claim(self, claim: Claim) -> Claimed:
        """Lease due tasks."""
        self._fp("claim.before")
        with self._lock:
            self._fp("claim.updated")
            claimed = self._claim(claim, self._clock_us())
        self._fp("claim.committed")
        return claimed

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Carry out decisions, fenced."""
        self._fp("settle.before")
        with self._lock:
            self._fp("settle.updated")
            now_us = self._clock_us()
            accepted = [self._settle(one, now_us) for one in settlements]
        self._fp("settle.committed")
        return accepted

    async def expired(self, limit: int, owners: Sequence[str] = ()) -> list[LeasedTask]:
        """List leased tasks whose lease has ended, or whose owner is one of `owners`."""
        with self._lock:
            now_us = self._clock_us()
            rows = [row for row in self._in_state(State.LEASED) if row.lease_until_us <= now_us or row.owner in owners]
            rows.sort(key=lambda row: (row.lease_until_us, row.task.id))
            return [leased(row, now_us) for row in rows[: max(0, limit)]]

    async def owners(self) -> dict[str, int]:
        """List the owners that hold leases, and when the first of each ends."""
        with self._lock:
            now_us, ends = self._clock_us(), dict[str, int]()
            for row in self._in_state(State.LEASED):
                owner = row.owner or ""
                ends[owner] = min(ends.get(owner, LATEST_US), row.lease_until_us - now_us)
            return ends

    async def next_due(self, exclude: frozenset[str] = frozenset()) -> int | None:
        """Microseconds until the next PENDING task is due."""
        with self._lock:
            return self._next_due(exclude, self._clock_us())

    async def prune(self) -> int:
        """Remove what has had its time."""
        with self._lock:
            now_us = self._clock_us()
            names = [key for key, holder in self._names.items() if not holder.holds(now_us)]
            dead = [row for row in self._in_state(State.DEAD) if row.dead_reason == "duplicate"]
            old = [row.task.id for row in dead if row.ended_us <= now_us - self._tombstone_us]
            for key in names:
                del self._names[key]
            for task_id in old:
                del self._rows[task_id]
            return len(names) + len(old) + self._prune_kept(now_us)

    async def note_progress(self, notes: Mapping[Lease, Progress]) -> frozenset[int]:
        """Write down how far tasks have come."""
        with self._lock:
            rows = [(self._rows.get(lease.task_id), lease, said) for lease, said in notes.items()]
            same = [(row, said) for row, lease, said in rows if row is not None and row.fence == lease.fence]
            for row, said in same:
                self._put(replace(row, progress=said))
            return frozenset(row.task.id for row, _said in same)

    def renew(self, leases: Sequence[Lease], lease_us: int) -> frozenset[int]:
        """Prolong leases that are still held."""
        self._fp("renew.before")
        with self._lock:
            held = [row for row in map(self._held, leases) if row is not None]
            for row in held:
                self._put(replace(row, lease_until_us=min(self._clock_us() + lease_us, LATEST_US)))
        self._fp("renew.committed")
        return frozenset(row.task.id for row in held)

    async def get(self, task_id: int) -> TaskInfo | None:
        """Give one task."""
        with self._lock:
            row = self._rows.get(task_id)
            return None if row is None else info(row)

    async def list_tasks(
        self, *, state: State | None = None, queue_name: str | None = None, limit: int = 100
    ) -> list[TaskInfo]:
        """List tasks by id."""
        with self._lock:
            infos = [info(self._rows[task_id]) for task_id in sorted(self._rows)]
        wanted = [i for i in infos if state in (None, i.state) and queue_name in (None, i.queue_name)]
        return wanted[: max(0, limit)]

    async def attempts(self, task_id: int) -> list[AttemptRecord]:
        """List what is kept of a task's attempts."""
        with self._lock:
            return self._attempts.of_task(task_id)

    async def children(self, task_id: int, limit: int = 100) -> list[TaskInfo]:
        """List the tasks that a task has added."""
        with self._lock:
            infos = [info(self._rows[i]) for i in sorted(self._rows) if self._rows[i].task.lineage.parent_id == task_id]
        return infos[: max(0, limit)]

    async def set_paused(self, queue_name: str, paused: bool) -> None:
        """Let a queue wait, or go on."""
        with self._lock:
            self._queues.change(queue_name, paused=paused)

    async def set_overrides(self, queue_name: str, overrides: Mapping[str, object]) -> None:
        """Put settings in the place of the configured ones."""
        with self._lock:
            self._queues.change(queue_name, overrides=dict(overrides) or None)

    async def run_again(self, task_id: int) -> bool:
        """Make a DEAD task PENDING and due now."""
        with self._lock:
            row = self._rows.get(task_id)
            if row is None or row.state is not State.DEAD:
                return False
            self._revive(row)
            return True

    async def run_again_all(self, queue_name: str, *, reason: str | None = None, limit: int = 1000) -> int:
        """Make dead tasks of a queue PENDING and due now."""
        with self._lock:
            dead = [row for row in self._in_state(State.DEAD) if row.task.queue_name == queue_name]
            wanted = [
                row for row in dead
                if row.dead_reason == reason or (reason is None and row.dead_reason not in (CANCELLED, "duplicate"))
            ]  # fmt: skip
            chosen = sorted(wanted, key=lambda row: (row.ended_us, row.task.id))[: max(0, limit)]
            for row in chosen:
                self._revive(row)
            return len(chosen)

    async def cancel(self, task_id: int) -> bool:
        """Call a task off."""
        with self._lock:
            row, now_us = self._rows.get(task_id), self._clock_us()
            if row is None or row.state in (State.DEAD, State.COMPLETED):
                return False
            if row.state is State.LEASED and self._queues.of(row.task.queue_name).dead_retention_seconds != 0:
                free = replace(row, owner=None, lease_until_us=0, fence=row.fence + 1)
                self._put(replace(free, state=State.DEAD, ended_us=now_us, dead_reason=CANCELLED))
            else:
                self._remove(row, now_us)
            return True

    async def delete(self, task_id: int) -> bool:
        """Remove a task that is not running."""
        with self._lock:
            row = self._rows.get(task_id)
            if row is None or row.state is State.LEASED:
                return False
            self._remove(row, self._clock_us())
            return True

    def _revive(self, row: Row) -> None:
        state = State.PULL if row.task.is_pull else State.PENDING
        again = Row(task=row.task, eta_us=self._clock_us(), state=state, fence=row.fence, added=row.added)
        self._put(replace(again, record_count=row.record_count))

    def _prune_kept(self, now_us: int) -> int:
        """Remove what its queue has kept for its time."""
        kept = self._kept()
        old: list[Row] = []
        for row in self._rows.values():
            times = {State.COMPLETED: kept.completed_us, State.DEAD: kept.dead_us}
            kept_us = times.get(row.state, {}).get(row.task.queue_name)
            if kept_us is None:
                is_old = row.state is State.COMPLETED and row.lease_until_us <= now_us
            else:
                is_old = row.ended_us <= now_us - kept_us
            if is_old:
                old.append(row)
        for row in old:
            self._forget(row, now_us)
        return len(old)

    def _kept(self) -> Retention:
        return retention([self._queues.of(row.task.queue_name) for row in self._rows.values()])

    def _forget(self, row: Row, now_us: int) -> None:
        """Remove a task; a name that it has won and still holds stays taken for a while."""
        del self._rows[row.task.id]
        self._attempts.forget(row.task.id)
        if row.key is not None and self._names.get(row.key) == Holder(row.task.id):
            self._names[row.key] = Holder(row.task.id, min(now_us + self._tombstone_us, LATEST_US))

    def _insert(self, task: NewTask, birth: Birth | None) -> None:
        now_us = self._clock_us()
        eta_us = min((now_us if task.eta_us is None else task.eta_us) + task.countdown_us, LATEST_US)
        state = State.PULL if task.is_pull else State.PENDING
        row = Row(task=task, eta_us=eta_us, state=state, added=(now_us, task.id))
        if birth is not None:
            birth.task = None
        if birth is None or self._queues.is_set(task.queue_name):
            self._put(row)
        else:
            row = replace(row, fence=birth.fence - 1)
            birth.task = self._lease(row, Claim(owner=birth.owner, limit=1, lease_us=birth.lease_us), now_us)

    def _add(self, task: NewTask, birth: Birth | None) -> AddResult:
        key, keys = None if task.name is None else (task.queue_name, task.name), task.keys
        if keys.on_conflict == "raise" and self._waiting(task.queue_name, keys.dedup_key):
            return AddResult.KEY_WAITS
        if key is not None:
            holder = self._names.get(key)
            if any(row.key == key and not row.has_ended for row in self._rows.values()):
                return AddResult.NAME_TAKEN
            if holder is not None and holder.holds(self._clock_us()):
                return AddResult.NAME_TAKEN if holder.expires_us is None else AddResult.NAME_TOMBSTONED
            self._names[key] = Holder(task.id)
        self._insert(task, birth)
        return AddResult.ADDED

    def _claim(self, wish: Claim, now_us: int) -> Claimed:
        choosing = Choosing(self._rows.values(), self._queues, wish.exclude, now_us)
        runners, cleared = self._sort_out(choosing.chosen(wish.limit), now_us)
        tasks = [self._lease(row, wish, now_us) for row in runners]
        choosing.begun(Counter(task.queue_name for task in tasks))
        after = Choosing(self._rows.values(), self._queues, wish.exclude, now_us)
        return Claimed(tasks, *after.until_next(choosing.held_back), cleared=cleared)

    def _lease(self, row: Row, wish: Claim, now_us: int) -> LeasedTask:
        taken = replace(
            row,
            state=State.LEASED,
            fence=row.fence + 1,
            owner=wish.owner,
            lease_until_us=min(now_us + wish.lease_us, LATEST_US),
            attempt_count=row.attempt_count + 1,
            first_attempt_us=now_us if row.first_attempt_us is None else row.first_attempt_us,
        )
        self._put(taken)
        task = leased(taken, now_us)
        return task if task.retry is not None else replace(task, retry=self._queues.of(task.queue_name).retry)

    def _sort_out(self, rows: Sequence[Row], now_us: int) -> tuple[list[Row], bool]:
        """Let each name be won by one task, and of each dedup key one stay; who runs, and whether others went."""
        keys = {row.task.id: (row.task.queue_name, row.task.keys.dedup_key) for row in rows if row.task.keys.dedup_key}
        waiting = {key: self._waiting(*key) for key in keys.values()}
        groups = {
            key: [Waiting(row.task.id, row.task.keys.on_conflict) for row in group] for key, group in waiting.items()
        }
        beaten: dict[int, int] = {}
        while True:
            kept = survivors(groups, beaten)
            runners = dict.fromkeys(kept.get(keys[i]) if i in keys else i for i in (row.task.id for row in rows))
            lost = self._lost([i for i in runners if i is not None and i not in beaten], now_us)
            beaten |= lost
            if lost.keys().isdisjoint(kept.values()):
                break
        dropped = [row for group in waiting.values() for row in group if row.task.id not in {*kept.values(), *beaten}]
        for row in dropped:
            self._forget(row, now_us)
        for task_id, holder in beaten.items():
            dead = replace(self._rows[task_id], state=State.DEAD, ended_us=now_us, dead_reason="duplicate")
            self._put(replace(dead, last_error=f"the name is held by task {holder}"))
        left = [row for row in rows if row.task.id in runners and row.task.id not in beaten]
        return left, bool(dropped or beaten)

    def _lost(self, task_ids: Iterable[int], now_us: int) -> dict[int, int]:
        """Let tasks win their names; give the holders of the names of those that could not."""
        lost: dict[int, int] = {}
        for task_id in task_ids:
            key = self._rows[task_id].key
            if key is not None:
                holder = self._names.get(key)
                if holder is None or not holder.holds(now_us):
                    holder = self._names[key] = Holder(task_id)
                if holder.task_id != task_id:
                    lost[task_id] = holder.task_id
        return lost

    def _waiting(self, queue_name: str, dedup_key: str | None) -> list[Row]:
        """Give the waiting tasks with a dedup key, in the order in which they were added."""
        waiting = (row for row in self._in_state(State.PENDING) if row.task.queue_name == queue_name)
        return sorted((row for row in waiting if row.task.keys.dedup_key == dedup_key), key=lambda row: row.added)

    def _settle(self, settlement: Settlement, now_us: int) -> bool:
        row, decision = self._held(settlement.lease), settlement.decision
        if row is None:
            return False
        takes_back = isinstance(decision, Retry | Die) and settlement.lease_until_us is not None
        if takes_back and settlement.lease_until_us != row.lease_until_us:
            return False
        record, recorded = settlement.record, row.record_count
        free = replace(row, owner=None, lease_until_us=0, record_count=recorded if record is None else record.number)
        match decision:
            case Complete() if kept_us := self._kept().completed_us.get(row.task.queue_name):
                self._tombstone(row, now_us)
                until_us = min(now_us + kept_us, LATEST_US)
                self._put(replace(free, state=State.COMPLETED, ended_us=now_us, lease_until_us=until_us))
            case Complete():
                self._remove(row, now_us)
            case Release():
                first_us = None if row.attempt_count <= 1 else row.first_attempt_us
                count = row.attempt_count - 1
                due_us = min(now_us + decision.delay_us, LATEST_US) if decision.delay_us else row.eta_us
                free = replace(free, attempt_count=count, first_attempt_us=first_us)
                self._put(replace(free, state=State.PENDING, eta_us=due_us))
            case Retry():
                due_us = min(now_us + decision.delay_us, LATEST_US)
                self._put(replace(attempted(free, decision), state=State.PENDING, eta_us=due_us))
            case Die() if self._queues.of(row.task.queue_name).dead_retention_seconds == 0:
                self._forget(row, now_us)
            case Die(reason=reason):
                dead = attempted(free, decision)
                self._put(replace(dead, state=State.DEAD, ended_us=now_us, dead_reason=reason))
        if record is not None and row.task.id in self._rows:
            self._attempts.write(record)
        return True

    def _remove(self, row: Row, now_us: int) -> None:
        del self._rows[row.task.id]
        self._attempts.forget(row.task.id)
        self._tombstone(row, now_us)

    def _tombstone(self, row: Row, now_us: int) -> None:
        if row.key is not None and row.state is not State.COMPLETED:
            holder = self._names.get(row.key)
            if holder is None or holder.task_id == row.task.id or not holder.holds(now_us):
                self._names[row.key] = Holder(row.task.id, min(now_us + self._tombstone_us, LATEST_US))

    def _held(self, lease: Lease) -> Row | None:
        row = self._rows.get(lease.task_id)
        return row if row is not None and row.state is State.LEASED and row.fence == lease.fence else None

    def _next_due(self, exclude: frozenset[str], now_us: int) -> int | None:
        return Choosing(self._rows.values(), self._queues, exclude, now_us).until_next()[0]

    def _in_state(self, state: State) -> Iterator[Row]:
        return (row for row in self._rows.values() if row.state is state)

    def _put(self, row: Row) -> None:
        self._rows[row.task.id] = row
