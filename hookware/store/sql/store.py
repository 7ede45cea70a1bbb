"""The store on a SQL database: the statements, each in a transaction of the runner."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from hookware.core.lifecycle import State
from hookware.core.task import Lease, LeasedTask, NewTask
from hookware.env import Env
from hookware.store.base import AddResult, Claim, Claimed, Settlement, TaskInfo
from hookware.store.sql import claim, damage, schema, settle, statements
from hookware.store.sql.damage import DamageError
from hookware.store.sql.outlook import Outlook
from hookware.store.sql.runner import Runner
from hookware.store.sql.times import Clock

T = TypeVar("T")


class SQLStore:
    """Tasks in a SQL database.

    Args:
        runner: where the statements run.
        clock: the database's time. It is read inside the transaction, once SQLite's lock is held.
        env: for the failpoints, and to see how long it takes to look for due tasks.
        tombstone_us: how long the name of a finished task stays taken.
    """

    def __init__(self, runner: Runner, clock: Clock, *, env: Env, tombstone_us: int) -> None:
        self._runner = runner
        self._clock = clock
        self._outlook = Outlook(env.monotonic)
        self._fp = env.fp
        self._tombstone_us = tombstone_us
        self._last_queue = ""
        self._checked = False

    async def prepare(self, create_tables: bool) -> None:
        """Make hookware's two tables if they are missing, or see that they are there; and that they fit, once.

        Raises:
            ConfigurationError: they are not there, or another version of hookware made them.
        """
        await self._runner.run(partial(self._prepare, create_tables), write=create_tables)

    def prepare_blocking(self, create_tables: bool) -> None:
        """Do the same in this thread."""
        self._runner.run_blocking(partial(self._prepare, create_tables), write=create_tables)

    async def close(self) -> None:
        """Close the store's connections."""
        await self._runner.close()

    async def add(self, tasks: Sequence[NewTask]) -> list[AddResult]:
        """Insert tasks in one transaction of the store's own."""
        self._fp("add.before")
        results = await self._runner.run(partial(self._add, tasks))
        self._fp("add.committed")
        return results

    def add_blocking(self, tasks: Sequence[NewTask]) -> list[AddResult]:
        """Do the same in this thread."""
        self._fp("add.before")
        results = self._runner.run_blocking(partial(self._add, tasks))
        self._fp("add.committed")
        return results

    async def claim(self, claim: Claim) -> Claimed:
        """Lease due tasks."""
        self._fp("claim.before")
        claimed, self._last_queue = await self._runner.run(partial(self._claim, claim))
        self._fp("claim.committed")
        return claimed

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Carry out decisions, fenced."""
        self._fp("settle.before")
        accepted = await self._runner.run(partial(self._settle, settlements))
        self._fp("settle.committed")
        return accepted

    async def expired(self, limit: int, owners: Sequence[str] = ()) -> list[LeasedTask]:
        """List leased tasks whose lease has ended, or whose owner is one of `owners`."""
        return await self._past_damage(partial(self._expired, limit, owners))

    async def owners(self) -> dict[str, int]:
        """List the owners that hold leases, and when the first of each ends."""
        return await self._past_damage(lambda c: statements.owners(c, self._clock(c)))

    async def next_due(self, exclude: frozenset[str] = frozenset()) -> int | None:
        """Microseconds until the next PENDING task is due."""
        return await self._runner.run(lambda c: claim.next_due(c, exclude, self._clock(c), self._outlook), write=False)

    async def prune(self) -> int:
        """Remove expired tombstones and old duplicates, in as many short transactions as it takes."""
        count = 0
        while removed := await self._past_damage(self._prune, write=True):
            count += removed
        return count

    def renew(self, leases: Sequence[Lease], lease_us: int) -> frozenset[int]:
        """Prolong leases, in the thread that calls."""
        self._fp("renew.before")
        kept = self._runner.run_blocking(lambda c: settle.renew(c, leases, self._clock(c) + lease_us))
        self._fp("renew.committed")
        return kept

    async def get(self, task_id: int) -> TaskInfo | None:
        """Give one task."""
        return await self._runner.run(lambda c: statements.get(c, task_id), write=False)

    async def list_tasks(
        self, *, state: State | None = None, queue_name: str | None = None, limit: int = 100
    ) -> list[TaskInfo]:
        """List tasks by id."""
        wanted = partial(statements.list_tasks, state=state, queue_name=queue_name, limit=limit)
        return await self._runner.run(wanted, write=False)

    async def run_again(self, task_id: int) -> bool:
        """Make a DEAD task PENDING and due now."""
        return await self._runner.run(lambda c: statements.run_again(c, task_id, self._clock(c)))

    async def delete(self, task_id: int) -> bool:
        """Remove a PENDING or DEAD task."""
        return await self._runner.run(lambda c: statements.remove(c, task_id, self._clock(c), self._tombstone_us))

    async def _past_damage(self, look: Callable[[Connection], T], *, write: bool = False) -> T:
        try:
            return await self._runner.run(look, write=write)
        except DamageError:
            await self._runner.run(lambda c: damage.bury(c, self._clock(c)))
            return await self._runner.run(look, write=write)

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
        tasks = statements.expired(connection, limit, owners, now_us)
        if self._outlook.is_slow:
            self._outlook.look(connection, now_us, wide=True)  # here no claim waits for it
        return tasks

    def _prune(self, connection: Connection) -> int:
        return statements.prune(connection, self._clock(connection), self._tombstone_us)

    def _add(self, tasks: Sequence[NewTask], connection: Connection) -> list[AddResult]:
        given = (tasks, self._clock(connection))
        try:
            return statements.add(connection, *given)
        except DamageError:
            damage.bury(connection, given[1])
            return statements.add(connection, *given)

    def _claim(self, wish: Claim, connection: Connection) -> tuple[Claimed, str]:
        given = (wish, self._clock(connection), self._outlook, self._last_queue)
        try:
            answer = claim.claim(connection, *given)
        except DamageError:
            damage.bury(connection, given[1], wish.lease_us)
            answer = claim.claim(connection, *given)
        self._fp("claim.updated")
        return answer

    def _settle(self, settlements: Sequence[Settlement], connection: Connection) -> list[bool]:
        accepted = settle.settle(connection, settlements, self._clock(connection), self._tombstone_us)
        self._fp("settle.updated")
        return accepted
