"""The store on a SQL database: the statements, each in a transaction of the runner."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import Connection

from hookware.core.history import AttemptRecord
from hookware.core.lifecycle import Release, State
from hookware.core.queue import QueueSettings
from hookware.core.retention import Retention
from hookware.core.task import Birth, Lease, LeasedTask, NewTask, Progress
from hookware.env import Env
from hookware.store.base import LATEST_US, AddResult, Claim, Claimed, Settlement, TaskInfo
from hookware.store.sql import attempts, audit, born, claim, damage, schema, settle, statements, swift, undo
from hookware.store.sql.board import Desk
from hookware.store.sql.damage import DamageError
from hookware.store.sql.outlook import Outlook
from hookware.store.sql.queues import overridden, set_overrides, set_paused
from hookware.store.sql.rows import to_row
from hookware.store.sql.runner import Runner
from hookware.store.sql.still_file import StillFile
from hookware.store.sql.swift import Stamp
from hookware.store.sql.times import Clock

T = TypeVar("T")

_NOTHING: Final = Claim(owner="", limit=0, lease_us=0)
"""A claim that only looks."""

_AGAIN_AT_ONCE: Final = 100
"""How many tasks one transaction revives: while it lasts, nobody else may write on SQLite."""


class SQLStore:
    """Tasks in a SQL database.

    Args:
        runner: where the statements run.
        clock: the database's time. It is read inside the transaction, once SQLite's lock is held.
        env: for the failpoints, and to see how long it takes to look for due tasks.
        tombstone_us: how long the name of a finished task stays taken.
        queues: the configured settings, by queue.
        stamp: gives what stands for the database's time in a statement, so that one may be a whole claim.
        path: the file of a SQLite database, which need not be asked what is due while nobody writes to it.

    Attributes:
        runner: where the statements run.
        path: the file of a SQLite database; "": it is none.
        on_cancelled: called with the id of each task that is called off here; None: no attempt runs in this process.
    """

    def __init__(
        self,
        runner: Runner,
        clock: Clock,
        *,
        env: Env,
        tombstone_us: int,
        queues: Mapping[str, QueueSettings] | None = None,
        stamp: Stamp = lambda: None,
        path: str = "",
    ) -> None:
        self.runner = runner
        self._clock, self._stamp = clock, stamp
        self._desk = Desk(Outlook(env.monotonic), queues or {})
        self.path, self._file, self._first_runner = path, StillFile(path, env), runner
        self._fp = env.fp
        self._tombstone_us = tombstone_us
        self._last_queue = ""
        self._checked = False
        self.on_cancelled: Callable[[int], None] | None = None

    @property
    def retention(self) -> Retention:
        """How long tasks stay after their end, by the settings that the last look at the queues has seen."""
        return self._desk.retention

    async def prepare(self, create_tables: bool) -> None:
        """Make hookware's two tables if they are missing, or see that they are there; and that they fit, once.

        Raises:
            ConfigurationError: they are not there, or another version of hookware made them.
        """
        await self.runner.run(partial(self._prepare, create_tables), write=create_tables)

    def prepare_blocking(self, create_tables: bool) -> None:
        """Do the same in this thread."""
        self.runner.run_blocking(partial(self._prepare, create_tables), write=create_tables)

    async def close(self) -> None:
        """Close the store's connections."""
        await self.runner.close()

    async def add(self, tasks: Sequence[NewTask], birth: Birth | None = None) -> list[AddResult]:
        """Insert tasks in one transaction of the store's own."""
        self._fp("add.before")
        leased = birth is not None and await self.runner.run(partial(self._add_leased, tasks[0], birth), single=True)
        results = [AddResult.ADDED] if leased else await self.runner.run(partial(self._add, tasks))
        self._fp("add.committed")
        return results

    def add_blocking(self, tasks: Sequence[NewTask], birth: Birth | None = None) -> list[AddResult]:
        """Do the same in this thread."""
        self._fp("add.before")
        leased = birth is not None and self.runner.run_blocking(
            partial(self._add_leased, tasks[0], birth, limited=True)
        )
        results = [AddResult.ADDED] if leased else self.runner.run_blocking(partial(self._add, tasks))
        self._fp("add.committed")
        return results

    async def claim(self, claim: Claim) -> Claimed:
        """Lease due tasks."""
        self._fp("claim.before")
        claimed = await self._claim_at_once(claim) or await self._claim_by_look(claim)
        self._fp("claim.committed")
        return claimed

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Carry out decisions, fenced."""
        self._fp("settle.before")
        done = await self._complete_at_once(settlements)
        left = [one for one in settlements if one.lease not in done]
        accepted = iter(await self.runner.run(partial(self._settle, left)) if left else ())
        self._fp("settle.committed")
        return [one.lease in done or next(accepted) for one in settlements]

    async def expired(self, limit: int, owners: Sequence[str] = ()) -> list[LeasedTask]:
        """List leased tasks whose lease has ended, or whose owner is one of `owners`."""
        return await self._past_damage(partial(self._expired, limit, owners))

    async def owners(self) -> dict[str, int]:
        """List the owners that hold leases, and when the first of each ends."""
        return await self._past_damage(self._owners)

    async def next_due(self, exclude: frozenset[str] = frozenset()) -> int | None:
        """Microseconds until the next PENDING task is due."""
        if self.runner is not self._first_runner:  # a test's, whose commits change no file
            return await self._next_due(exclude)
        look = self._file.look()
        if known := self._file.answer(look, exclude):
            return known.until_due_us(look.now_us)
        until_due_us = await self._next_due(exclude)
        self._file.remember(look, exclude, until_due_us)
        return until_due_us

    async def _next_due(self, exclude: frozenset[str]) -> int | None:
        guess, stamp_us = self._desk.guess, self._stamp()
        if guess is not None and stamp_us is not None and not exclude:  # most often: a process that has nothing to do
            self._desk.note_odd()
            run = partial(swift.claim, wish=_NOTHING, guess=guess, stamp_us=stamp_us)
            claimed, _unfit, needs_look = await self.runner.run(run, write=False, single=True)
            if not needs_look:
                self._desk.note_plain()
            if claimed is not None:
                return claimed.next_due_us
        return await self.runner.run(lambda c: claim.next_due(c, exclude, self._clock(c), self._desk), write=False)

    async def prune(self) -> int:
        """Remove what has had its time, in as many short transactions as it takes."""
        count = 0
        while removed := await self._past_damage(self._prune, write=True):
            count += removed
        return count

    async def note_progress(self, notes: Mapping[Lease, Progress]) -> frozenset[int]:
        """Write down how far tasks have come."""
        return await self.runner.run(lambda c: statements.note_progress(c, notes))

    def renew(self, leases: Sequence[Lease], lease_us: int) -> frozenset[int]:
        """Prolong leases, in the thread that calls."""
        self._fp("renew.before")
        kept = self.runner.run_blocking(lambda c: settle.renew(c, leases, self._clock(c) + lease_us))
        self._fp("renew.committed")
        return kept

    async def get(self, task_id: int) -> TaskInfo | None:
        """Give one task."""
        return await self.runner.run(lambda c: statements.get(c, task_id), write=False)

    async def list_tasks(
        self, *, state: State | None = None, queue_name: str | None = None, limit: int = 100
    ) -> list[TaskInfo]:
        """List tasks by id."""
        wanted = partial(statements.list_tasks, state=state, queue_name=queue_name, limit=limit)
        return await self.runner.run(wanted, write=False)

    async def attempts(self, task_id: int) -> list[AttemptRecord]:
        """List what is kept of a task's attempts."""
        return await self.runner.run(lambda c: attempts.of_task(c, task_id), write=False)

    async def children(self, task_id: int, limit: int = 100) -> list[TaskInfo]:
        """List the tasks that a task has added."""
        return await self.runner.run(lambda c: statements.children(c, task_id, limit), write=False)

    async def set_paused(self, queue_name: str, paused: bool) -> None:
        """Let a queue wait, or go on."""
        await self.runner.run(lambda c: set_paused(c, queue_name, paused, self._clock(c)))

    async def set_overrides(self, queue_name: str, overrides: Mapping[str, object]) -> None:
        """Put settings in the place of the configured ones."""
        await self.runner.run(lambda c: set_overrides(c, queue_name, overrides))

    async def run_again(self, task_id: int) -> bool:
        """Make a DEAD task PENDING and due now."""
        return await self.runner.run(lambda c: statements.run_again(c, task_id, self._clock(c)))

    async def run_again_all(self, queue_name: str, *, reason: str | None = None, limit: int = 1000) -> int:
        """Make dead tasks of a queue PENDING and due now, in as many short transactions as it takes."""
        count, died_until_us = 0, LATEST_US

        def again(connection: Connection) -> int:
            nonlocal died_until_us
            now_us = self._clock(connection)
            died_until_us = min(died_until_us, now_us)  # one that dies meanwhile is not revived once more
            some = min(limit - count, _AGAIN_AT_ONCE)
            return statements.run_some_again(connection, queue_name, reason, now_us, died_until_us, some)

        while count < limit and (revived := await self.runner.run(again)):
            count += revived
        return count

    async def cancel(self, task_id: int) -> bool:
        """Call a task off."""
        cancelled = await self.runner.run(self._cancel(task_id))
        if cancelled:
            self.called_off(task_id)
        return cancelled

    def called_off(self, task_id: int) -> None:
        """Cut the attempt of a task short that was called off or removed, if it runs in this process."""
        on_cancelled = self.on_cancelled
        if on_cancelled is not None:
            on_cancelled(task_id)

    async def delete(self, task_id: int) -> bool:
        """Remove a task that is not running."""
        return await self.runner.run(lambda c: statements.remove(c, task_id, self._clock(c), self._tombstone_us))

    async def _past_damage(self, look: Callable[[Connection], T], *, write: bool = False) -> T:
        try:
            return await self.runner.run(look, write=write)
        except DamageError:
            await self.runner.run(lambda c: damage.bury(c, self._clock(c)))
            return await self.runner.run(look, write=write)

    def _prepare(self, create_tables: bool, connection: Connection) -> None:
        if create_tables:
            schema.make_tables(connection)
        else:
            schema.require_tables(connection)
        if not self._checked:
            schema.check_tables(connection)
            self._checked = True

    def _expired(self, limit: int, owners: Sequence[str], connection: Connection) -> list[LeasedTask]:
        # The time before the read: a lease renewed in between must not look ended.
        now_us = self._clock(connection)
        return statements.expired(connection, limit, owners, now_us)

    def _owners(self, connection: Connection) -> dict[str, int]:
        now_us = self._clock(connection)
        owners = statements.owners(connection, now_us)
        outlook = self._desk.outlook
        if outlook.is_slow:
            outlook.look(connection, now_us, wide=True)  # here no claim waits for it
        return owners

    def _prune(self, connection: Connection) -> int:
        now_us = self._clock(connection)
        self._desk.learn(overridden(connection))  # what was never looked at must not go too early
        pruned_count = statements.prune(connection, now_us, self._tombstone_us, self.retention)
        undo.forget(connection, now_us)
        return pruned_count + audit.prune(connection, now_us)

    def _cancel(self, task_id: int) -> Callable[[Connection], bool]:
        return lambda c: statements.cancel(c, task_id, self._clock(c), self._tombstone_us, self.retention)

    def _add(self, tasks: Sequence[NewTask], connection: Connection) -> list[AddResult]:
        given = (tasks, self._clock(connection))
        try:
            return statements.add(connection, *given)
        except DamageError:
            damage.bury(connection, given[1])
            return statements.add(connection, *given)

    def _add_leased(self, task: NewTask, birth: Birth, connection: Connection, *, limited: bool = False) -> bool:
        stamp_us = None if limited else self._stamp()  # the clock also limits what a statement may take
        now_us = self._clock(connection) if stamp_us is None else stamp_us
        return born.insert_leased(connection, to_row(task, now_us), birth, now_us)

    def _claim(self, wish: Claim, connection: Connection) -> tuple[Claimed, str]:
        now_us = self._clock(connection)
        given = (wish, now_us, self._desk, self._last_queue, self._tombstone_us)
        try:
            answer = claim.claim(connection, *given)
        except DamageError:
            damage.bury(connection, now_us, wish.lease_us)
            answer = claim.claim(connection, *given)
        self._fp("claim.updated")
        return answer

    async def _complete_at_once(self, settlements: Sequence[Settlement]) -> set[Lease]:
        """Complete tasks in one statement, if that is all there is to do; which those were."""
        leases = {one.lease for one in settlements if one.is_simple}
        if len(leases) < len(settlements) or not leases or self._stamp() is None:
            return set()
        return await self.runner.run(lambda c: swift.complete(c, [*leases], self.retention), single=True)

    async def _claim_by_look(self, wish: Claim) -> Claimed:
        claimed, self._last_queue = await self.runner.run(partial(self._claim, wish))
        return claimed

    async def _claim_at_once(self, wish: Claim) -> Claimed | None:
        """Claim in one statement; None where that is not the way, or there is none."""
        guess, stamp_us = self._desk.guess, self._stamp()
        if guess is None or stamp_us is None or wish.exclude or wish.limit < 1:
            return None
        self._desk.note_odd()  # if it fails, the next claim goes another way
        claimed, unfit, needs_look = await self.runner.run(lambda c: swift.claim(c, wish, guess, stamp_us), single=True)
        if not needs_look:
            self._desk.note_plain()
        if claimed is None:
            return None
        self._last_queue = guess.queue_name
        if unfit:
            await self.settle([Settlement(lease, Release()) for lease in unfit])
            return replace(claimed, next_due_us=0, cleared=True)  # the next claim puts them aside
        return claimed

    def _settle(self, settlements: Sequence[Settlement], connection: Connection) -> list[bool]:
        now_us = self._clock(connection)
        accepted = settle.settle(connection, settlements, now_us, self._tombstone_us, self.retention)
        self._fp("settle.updated")
        return accepted
