"""The database of one Hookware as enqueue sees it: whose engine, which store, and whom to wake."""

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import anyio
from sqlalchemy import URL, Connection, Engine, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from hookware.asking import Asking
from hookware.config import Config, check_mode
from hookware.core.cron import CronEntry
from hookware.core.growth import Growth
from hookware.core.task import NO_LINEAGE, Draft, Lineage, NewTask
from hookware.drafting import task_of
from hookware.env import Env, in_event_loop_or_its_thread, on_asyncio
from hookware.errors import ConfigurationError, SessionError, describe
from hookware.events import Events, TasksCommitted
from hookware.handoff import HandOff, Place
from hookware.log import log_of
from hookware.store.base import AddResult
from hookware.store.notices import Notices
from hookware.store.sql import executed, postgresql, sqlite
from hookware.store.sql.address import shown
from hookware.store.sql.engines import engine_of
from hookware.store.sql.executed import Ended
from hookware.store.sql.notify import notices_of
from hookware.store.sql.own_runner import own_runner
from hookware.store.sql.refused import raise_for
from hookware.store.sql.runner import Runner
from hookware.store.sql.selftest import check_atomicity, keeps_snapshots, schema_of_tables
from hookware.store.sql.store import SQLStore
from hookware.store.sql.tables import TaskRow, task_table
from hookware.store.sql.times import Clock, ahead_with, from_now, postgresql_clock, postgresql_time
from hookware.store.sql.unusable import is_unusable, unusable
from hookware.tracing import Tracing
from hookware.vitals import Vitals

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_SIGN_OF_LIFE_SECONDS = 1.0
_logger = log_of()
P = ParamSpec("P")
T = TypeVar("T")

_installed: "weakref.WeakSet[Outbox]" = weakref.WeakSet()


class Outbox:
    """Where the tasks of one Hookware go.

    Making one opens no connection (a server may fork after it); `prepare` does, once.

    Attributes:
        on_committed: called after each commit of tasks in this process, to have them run; None: no lifespan runs.
        own_clock: the database's time in a transaction of hookware's own, which it also limits in time.
        notices: how other processes are told of tasks; None on SQLite, where they ask.
        listens: whether this process is to hear of the tasks of others.
        keeps_snapshots: whether the transactions of the user's engine see the database as it was at their begin.
        seen: whether a lifespan has passed through.
        running: whether it still runs; None before it began.
        under_way_count: how many requests and tasks are on their way through the app.
        functions: what `hookware.deferred` may call here; None: nothing.
        growth: notices tasks that breed.
        tracing: follows tasks from where they are added to where they run; None: nobody does.
        vitals: how the loops of this process are.
        clock, own_clock: the database's time, in a transaction of the user's and in one of hookware's own.
        cron_entries: gives the cron entries that are known now.
        hand_off: where a task that is leased to this process as it is inserted goes; None: nothing runs tasks here.
        within: makes connections whose transactions are savepoints of one that a test rolls back; None: there is none.
    """

    functions: object | None = None
    tracing: Tracing | None = None
    under_way_count = 0
    within: Engine | None = None
    hand_off: HandOff | None = None

    def __init__(
        self,
        engine: "Engine | AsyncEngine | URL | str",
        *,
        env: Env,
        config: Config,
        events: Events,
        on_begin: Callable[[Connection], None] | None = None,
        listen: bool | URL | str = True,
    ) -> None:
        self.engine: Engine | AsyncEngine = engine_of(engine)
        self._made_engine = self.engine is not engine
        self.is_async = not isinstance(self.engine, Engine)
        self.sync_engine: Engine = self.engine if isinstance(self.engine, Engine) else self.engine.sync_engine
        self.env, self.config, self.events = env, config, events
        self.tombstone_us = int(config.tombstone_seconds * 1_000_000)
        self.on_committed: Callable[[], None] | None = None
        if self.sync_engine.dialect.name == "sqlite":
            sqlite.configure(self.sync_engine, on_begin=on_begin)
        else:
            postgresql.note_idle(self.sync_engine, env)
        self.write_lock = sqlite.WriteLock() if self.sync_engine.dialect.name == "sqlite" else None
        self._own_runner = self.runner = own_runner(self.engine, env, self.write_lock)
        in_sqlite = self.write_lock is not None
        self.clock: Clock = _host_time(env) if in_sqlite else ahead_with(env, postgresql_time)
        self.own_clock: Clock = self.clock if in_sqlite else ahead_with(env, _weakly(self._limiting_time))
        self.store = SQLStore(
            self.runner, self.own_clock, env=env, tombstone_us=self.tombstone_us, queues=config.queues,
            stamp=_weakly(self._own_stamp_us), path=sqlite.file_of(self.sync_engine.url) if in_sqlite else "",
        )  # fmt: skip
        self.notices: Notices | None = notices_of(self.engine, self.runner, env, listen)
        self.listens = listen is not False
        # Whoever waits for a connection, or for its turn to write, takes no place from those who hold it.
        self.open_limiter, self.turn_limiter, self.commit_limiter, self.rollback_limiter = map(
            anyio.CapacityLimiter, [40] * 4
        )
        # Handlers that overran their deadline hold a thread until they return: others must not wait for it.
        self.handler_limiter = anyio.CapacityLimiter(config.concurrency + 40)
        self.keeps_snapshots = self.seen = self._prepared = False
        self.running: bool | None = None
        self.growth = Growth()
        self.cron_entries: Callable[[], Sequence[CronEntry]] = list
        self.vitals = Vitals(Asking(_weakly(self._ask_for_life), env, good_for_seconds=_SIGN_OF_LIFE_SECONDS))
        self._said: set[str] = set()
        self._preparing = anyio.Lock()
        _installed.add(self)

    def start_over(self) -> None:
        """Forget the connections and locks of the process that this one was forked from, without closing them."""
        self.under_way_count, self.hand_off = 0, None
        self.sync_engine.dispose(close=False)
        self._own_runner.start_over()
        if self.notices is not None:
            self.notices.start_over()

    def __del__(self) -> None:
        # For those who add tasks without a lifespan that ends: nobody else would close these connections.
        if hasattr(self, "_own_runner"):
            self._own_runner.dispose()

    def connect(self) -> Connection:
        """Take a connection of the user's engine, for hookware's own session."""
        if self.within is not None:
            return self.within.connect()
        in_sqlite = self.write_lock is not None
        return self.sync_engine.connect() if in_sqlite else postgresql.connect_alive(self.sync_engine, self.env)

    def stamp_us(self) -> int | None:
        """The time that new rows carry; None where the database sets its own when they are inserted."""
        if self.write_lock is None:
            return from_now(self.env.ahead_us) if self.env.ahead_us else None
        return self.env.now_us()

    def _own_stamp_us(self) -> int | None:
        # A savepoint of a test's is no place for a transaction that ends with its one statement.
        return None if self.write_lock is not None or self.within is not None else from_now(self.env.ahead_us)

    def _ask_for_life(self) -> bool:
        return self.runner.run_blocking(lambda connection: bool(connection.scalar(select(1))), write=False)

    def _limiting_time(self, connection: Connection) -> int:
        return (postgresql_clock if self.within is None else postgresql_time)(connection)

    def work_within(self, engine: Engine | None, runner: Runner | None = None) -> None:
        """Work on the connections of `engine`, whose transactions are savepoints of a test's; None: as ever."""
        self.within = engine
        self.runner = self.store.runner = self._own_runner if runner is None else runner

    @property
    def address(self) -> str:
        """The database's URL without its password, for messages."""
        return shown(self.sync_engine.url)

    def owns(self, session: Session) -> bool:
        """Say whether a session writes tasks to this database."""
        try:
            bind = session.get_bind(mapper=TaskRow)
        except SQLAlchemyError:
            return False
        return self.owns_engine(bind.engine)

    def owns_engine(self, engine: Engine) -> bool:
        """Say whether an engine, or a clone of it with other options, is this database's."""
        return engine.pool is self.sync_engine.pool or (self.within is not None and engine.pool is self.within.pool)

    def check_schema(self, connection: Connection) -> None:
        """See that a connection that is about to insert tasks does so into the tables that are dispatched from.

        Raises:
            SessionError: it has a schema_translate_map of its own that leads elsewhere.
        """
        here = (self.sync_engine.get_execution_options().get("schema_translate_map") or {}).get(None)
        there = connection.schema_for_object(task_table)
        if there != here:
            raise SessionError(
                f"the session's schema_translate_map leads hookware's tables to {there!r}, where nobody would look for "
                f"the task: this Hookware works in {here or 'the default schema'!r}. Give your own tables a schema "
                "name, and map that one instead of None"
            )

    def new_tasks(self, drafts: Sequence[Draft], lineage: Lineage = NO_LINEAGE) -> list[NewTask]:
        """Give the drafts of one call, which go to one queue, their ids and the configured defaults.

        Raises:
            UnknownQueueError: the queue would have to be configured.
            TaskTooLargeError: a payload is over the configured limit.
            InvalidQueueModeError: push tasks go to a pull queue, or the reverse.
        """
        tasks = [self.new_task(draft, lineage) for draft in drafts]
        for task in tasks[:1]:
            check_mode(self.config.queue(task.queue_name), wants_pull=task.is_pull)
        return tasks if self.tracing is None else list(self.tracing.added(tasks))

    def new_task(self, draft: Draft, lineage: Lineage = NO_LINEAGE) -> NewTask:
        """Give a draft its id and the configured defaults, and its body the form in which it is stored."""
        return task_of(draft, self.config, self.env, lineage)

    async def prepare(self) -> None:
        """Make the tables if asked to, and test that the user's engine can roll back; once.

        Raises:
            ConfigurationError: the database cannot be used like this; the message says what to change.
        """
        async with self._preparing:
            if self._prepared or self.within is not None:  # a test has prepared it, before its transaction
                return
            try:
                await self.store.prepare(self.config.create_tables)
                await self._self_test()
            except Exception as error:
                if not is_unusable(error):
                    raise
                raise ConfigurationError(unusable(self.sync_engine.url, error)) from error
            self._prepared = True

    @property
    def is_prepared(self) -> bool:
        """Whether `prepare` has done its work."""
        return self._prepared

    def prepare_blocking(self) -> None:
        """Make the tables in this thread, if nothing has prepared them yet; for scripts."""
        if not self._prepared:
            self.store.prepare_blocking(self.config.create_tables)

    async def _self_test(self) -> None:
        if self.is_async:
            if not on_asyncio():
                raise ConfigurationError(
                    "an AsyncEngine needs asyncio, and this server runs trio: give Hookware a synchronous Engine, or "
                    "run the server on asyncio"
                )
            async with self.engine.connect() as connection:  # type: ignore[union-attr]  # is_async says which
                schema = await connection.run_sync(self._examine)
        else:
            schema = await anyio.to_thread.run_sync(self._examine, self.sync_engine)
        own_schema = await self.runner.run(schema_of_tables, write=False)
        if schema != own_schema:
            raise ConfigurationError(
                f"the engine's connections find hookware's tables in {schema}, and hookware's own in {own_schema}: let "
                "connect_args=, the URL or a connect listener that is there before Hookware(engine=...) set the "
                "search_path, not something that comes later"
            )

    def _examine(self, bind: Engine | Connection) -> str:
        check_atomicity(bind)
        self.keeps_snapshots = keeps_snapshots(bind)
        return schema_of_tables(bind)

    async def add(self, tasks: Sequence[NewTask]) -> None:
        """Add tasks in a transaction of their own; durable on return."""
        await self.prepare()
        with self._place_for(tasks) as place:
            self._added(tasks, await self.store.add(tasks, place), place)

    def add_blocking(self, tasks: Sequence[NewTask]) -> None:
        """Do the same from synchronous code, blocking its thread for one commit."""
        self.prepare_blocking()
        with self._place_for(tasks) as place:
            self._added(tasks, self.store.add_blocking(tasks, place), place)

    def _place_for(self, tasks: Sequence[NewTask]) -> Place | nullcontext[None]:
        hand_off = self.hand_off  # a stop may take it away
        if hand_off is None or len(tasks) != 1 or not tasks[0].is_plain:
            return nullcontext()
        return hand_off.place_for(tasks[0].queue_name, tasks[0].id) or nullcontext()

    def _added(self, tasks: Sequence[NewTask], results: Sequence[AddResult], place: Place | None) -> None:
        self.committed(results.count(AddResult.ADDED), [place] if place is not None and place.task is not None else [])
        raise_for(tasks, results)

    async def note_executed(self, counts: Mapping[str, Ended]) -> None:
        """Add to what is counted of attempts that ended."""
        await self.runner.run(lambda connection: executed.note(connection, counts, self.own_clock(connection)))

    def says_first(self, topic: str) -> bool:
        """Say whether a topic comes up for the first time."""
        is_first = topic not in self._said
        self._said.add(topic)
        return is_first

    def warn_once(self, topic: str, text: str) -> None:
        """Log a warning the first time its topic comes up."""
        if self.says_first(topic):
            _logger.warning("%s", text)

    def committed(self, count: int, places: Sequence[Place] = ()) -> None:
        """Tell that `count` tasks were committed here, some in places. Never raises, and makes no event loop wait."""
        for place in places:
            place.committed()
        if count:
            self.events.emit(TasksCommitted(count))
        if count > len(places):
            self.changed()

    def changed(self) -> None:
        """Tell this process and the others that tasks may be due now. Never raises, never makes an event loop wait."""
        (self.on_committed or self._tell_from_script)()

    def _tell_from_script(self) -> None:
        """Where no loop can do it later, tell the processes that dispatch, in this thread."""
        if self.notices is None or in_event_loop_or_its_thread():
            return
        try:
            self.notices.send_blocking()
        except Exception as error:  # noqa: BLE001 - whatever a database can raise; the tasks are stored all the same
            self.warn_once("untold", f"other processes cannot be told of new tasks ({describe(error)}): they poll")

    async def close(self) -> None:
        """Give hookware's own connections back."""
        self.running = False
        await self._own_runner.close()
        if self._made_engine:
            await self._dispose_engine()

    async def _dispose_engine(self) -> None:
        if isinstance(self.engine, Engine):
            await anyio.to_thread.run_sync(self.engine.dispose)
        else:
            await self.engine.dispose()


def _start_over() -> None:
    """After a fork, leave the parent its connections and its locks: the child has none of them."""
    for outbox in list(_installed):
        outbox.start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)


def _host_time(env: Env) -> Clock:
    # SQLite has no clock of its own that every version can read: it is this host's.
    return lambda _connection: env.now_us()


def _weakly(method: Callable[P, T]) -> Callable[P, T]:
    """Give an outbox's method to what it holds itself: it must go as soon as nobody wants it, and not stay counted."""
    reference = weakref.WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        held = reference()
        if held is None:
            raise RuntimeError("the Hookware that this belongs to is gone")
        return held(*args, **kwargs)

    return call


def outboxes() -> list[Outbox]:
    """Give those of all Hookwares in this process."""
    return list(_installed)


def the_outbox() -> Outbox:
    """Give the one Hookware of this process, for an `add` outside of any request: the one whose lifespan runs."""
    running = [outbox for outbox in _installed if outbox.running]
    match running or [outbox for outbox in _installed if outbox.running is None]:
        case [outbox]:
            return outbox
        case []:
            raise ConfigurationError(
                "there is no Hookware in this process. app.add_middleware(Hookware, ...) makes it when the server "
                "starts; in a script, write `hookware = Hookware(engine=engine, dispatch=False)` before adding tasks"
            )
        case several:
            raise ConfigurationError(
                f"{len(several)} Hookware instances are in this process, and this is no request of one of them: "
                "pass session= or connection= to say whose database the task goes to"
            )


def outbox_of(engine: Engine) -> Outbox | None:
    """Give the Hookware that dispatches from the database of `engine`."""
    return next((outbox for outbox in _installed if outbox.owns_engine(engine)), None)
