"""Hookware: the ASGI app or middleware that holds everything together.

`lifespan` runs the loops, `http` opens the request's unit of work, every other scope passes through untouched.
"""

import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from anyio.abc import TaskGroup
from sqlalchemy import URL, Engine
from starlette.types import ASGIApp, Receive, Scope, Send

from hookware.config import Config, dispatches_here, packages_of, pickle_keys_of
from hookware.configured_queues import queues_by_name, refuses_unknown
from hookware.core.codec import Codec
from hookware.core.headers import strip_internal
from hookware.core.queue import CRON_QUEUE, CRON_SETTINGS, QueueSettings
from hookware.dashboard_place import dashboard_scope, is_for_dashboard, served_dashboard
from hookware.delivery import SCOPE_KEY, Target, delivery_in, nowhere
from hookware.direct import DirectRoutes
from hookware.env import Env
from hookware.errors import ConfigurationError, Error
from hookware.events import Events
from hookware.exchange import serve_delivery, serve_request
from hookware.foreground import Foreground
from hookware.functions import Functions
from hookware.handlers import DEFERRED_URL, TaskHandler, TaskRouter, default_router
from hookware.insight import Insight
from hookware.lifespan import Lifespan, built_in_a_call, fail_startup
from hookware.log import log_of
from hookware.loops import Loops
from hookware.observer import Observer
from hookware.plain_answers import forbid, nothing_here
from hookware.processing import Processing
from hookware.queue import Queue
from hookware.scheduled import Cron, CronSource, all_entries, entries_of
from hookware.store.base import Inspector
from hookware.store.sql.on_connection import wake_on_commit
from hookware.store.sql.outbox import Outbox
from hookware.unit_of_work import UnitOfWork, current_unit, refuse_second_writer
from hookware.yaml_files import Source, listed_queues

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from hookware.dashboard import Given

DEFAULT_DATABASE_URL: Final = "sqlite:///hookware.db"
NOTICE_KEY: Final = "hookware.notice"
"""Where the scope of a lifespan may hold a function, to which each Hookware that it reaches gives itself."""
_MOUNTED: Final = (
    "hookware is on a mounted sub-app, where no lifespan reaches it: nobody would dispatch the task. "
    "Put Hookware around the outermost app, or add it to that app with add_middleware(Hookware, engine=...)"
)
_NO_LIFESPAN: Final = (
    "no lifespan has run in this process: tasks are stored, and nobody dispatches them here. Start the server with "
    "its lifespan on (uvicorn: without --lifespan off), or use `with TestClient(app)`"
)
_logger = log_of()


class Hookware:
    """Durable background tasks for an ASGI app.

    Wrap any app, `app = Hookware(app, engine=engine)`; add it to a Starlette or FastAPI app,
    `app.add_middleware(Hookware, engine=engine)`; or use it alone, `app = Hookware(engine=engine)`.

    Args:
        app: the app to wrap; none: only task handlers are served.
        engine: the very Engine or AsyncEngine that the app's sessions use. Or a URL, where all sessions are
            hookware's own; None: the URL in HOOKWARE_DATABASE_URL, else sqlite:///hookware.db.
        concurrency: tasks that may run at once in this process.
        dispatch_deadline_seconds: how long one attempt may take, where the task does not say.
        lease_seconds: how long the tasks of a process that dies on another host wait before others take them.
        poll_seconds: the longest wait before the database is asked for due tasks; three times as long where the
            notices of other processes are heard, as on PostgreSQL.
        drain_seconds: how long running tasks may go on at shutdown before they are cancelled and given back.
        crash_limit: how many processes a task may take down before it is dead.
        tombstone_seconds: how long the name of a finished task stays taken.
        max_body_bytes: the largest payload of one task.
        base_url: the scheme and host that tasks come with, such as "https://example.com": what `request.url_for` makes
            of them in a task, and what HTTPSRedirectMiddleware and TrustedHostMiddleware want to see.
        create_tables: make hookware's tables at start-up where they are missing.
        dispatch: run tasks in this process; False only stores them. The environment variable HOOKWARE_DISPATCH, "on"
            or "off", wins over it.
        foreground_first: while users are there, begin tasks one after another and between requests, and run fewer at
            once when the event loop is late; False runs as many as there are slots, whoever waits.
        listen: on PostgreSQL, hear at once of tasks that other processes add. If `engine` goes through a pooler in
            transaction mode, such as pgbouncer: a URL around it; or False, to find such tasks by `poll_seconds` alone.
        queues: the queues, each a `Queue` with its settings; those not named have the defaults. Or the path of a
            queue.yaml (extra `yaml`), or what it would say as a mapping.
        unknown_queues: what becomes of tasks for a queue that is neither in `queues` nor "default": "allow", or
            "refuse", which raises UnknownQueueError. None: "refuse" if there are `queues`, else "allow".
        deferred_packages: modules and packages all of whose functions `deferred.defer` may call, besides those that
            `deferred.function` registers.
        deferred_pickle_key: a secret of at least 32 bytes, or several of which the first signs: lets `deferred.defer`
            take any callable and any arguments, as pickles. Who has the key, and writes to the database, can run any
            code.
        codec: encodes the payloads of tasks in the database, such as `hookware.encryption.AesGcm`.
        cron: tasks by the clock, besides those of `hookware.cron`: the path of a cron.yaml (extra `yaml`), what it
            would say as a mapping, or CronEntry objects.
        cron_grace_seconds: how old a time may be that nobody was there for, and that is made up for; of several such
            times of one entry only the latest is; at least a minute.
        attempt_history: which attempts `inspector().attempts()` shows: "failures", those that did not complete their
            task, "all", completed ones too where their queue keeps finished tasks; "off". They go with the task.
        max_chain_depth: how many tasks may follow each other, each added by the one before; None: no limit, so that a
            task which adds itself again goes on for ever.
        observers: what watches it, such as `hookware.prometheus.Prometheus()` and
            `hookware.opentelemetry.OpenTelemetry()`.
        dashboard: serve the dashboard (extra `dashboard`) under `/_hookware/`, to whom this says; see
            `hookware.dashboard.Dashboard`. True: to who has the token in HOOKWARE_DASHBOARD_TOKEN, or without one to
            clients on this machine.
        router: the task handlers; the default one holds those of `hookware.task_handler`.
        env: clock, randomness and threads; for tests and simulations.

    Raises:
        ConfigurationError: an option is out of range, or the engine cannot keep the promise.
    """

    _refused: Error | ImportError | None = None
    _started = False

    def __init__(  # noqa: PLR0913 - the options of the product, each by keyword
        self,
        app: Callable[..., Awaitable[None]] | None = None,  # frameworks type their scopes each in its own way
        *,
        engine: "Engine | AsyncEngine | URL | str | None" = None,
        concurrency: int = 10,
        dispatch_deadline_seconds: float = 30.0,
        lease_seconds: float = 30.0,
        poll_seconds: float = 1.0,
        drain_seconds: float = 10.0,
        crash_limit: int = 3,
        tombstone_seconds: float = 9 * 86_400.0,
        max_body_bytes: int = 1_048_576,
        base_url: str = "http://localhost",
        create_tables: bool = True,
        dispatch: bool = True,
        foreground_first: bool = True,
        listen: bool | URL | str = True,
        queues: Source | Iterable[Queue | QueueSettings] = (),
        unknown_queues: Literal["allow", "refuse"] | None = None,
        deferred_packages: Iterable[str] = (),
        deferred_pickle_key: bytes | Sequence[bytes] | None = None,
        codec: Codec | None = None,
        cron: CronSource = (),
        cron_grace_seconds: float = 3600.0,
        attempt_history: Literal["failures", "all", "off"] = "failures",
        max_chain_depth: int | None = None,
        observers: Iterable[Observer] = (),
        dashboard: "Given" = False,
        router: TaskRouter | None = None,
        env: Env | None = None,
    ) -> None:
        self.app: ASGIApp = nothing_here if app is None else app
        self.events = Events()
        self._router = default_router if router is None else router
        self._env = env or Env()
        try:
            _check_types(self.app, self._router)
            self.config = Config(
                concurrency=concurrency,
                dispatch_deadline_seconds=dispatch_deadline_seconds,
                lease_seconds=lease_seconds,
                poll_seconds=poll_seconds,
                drain_seconds=drain_seconds,
                crash_limit=crash_limit,
                tombstone_seconds=tombstone_seconds,
                max_body_bytes=max_body_bytes,
                base_url=base_url,
                create_tables=create_tables,
                dispatch=dispatches_here(dispatch),
                foreground_first=foreground_first,
                queues={CRON_QUEUE: CRON_SETTINGS, **(by_name := queues_by_name(listed_queues(queues)))},
                refuse_unknown_queues=refuses_unknown(unknown_queues, bool(by_name)),
                deferred_packages=packages_of(deferred_packages),
                deferred_pickle_keys=pickle_keys_of(deferred_pickle_key),
                codec=codec,
                cron_grace_seconds=cron_grace_seconds,
                attempt_history=attempt_history,
                max_chain_depth=max_chain_depth,
            )
            self._outbox = self._outbox_on(engine, listen, cron, observers)
            self._dashboard = served_dashboard(dashboard, self._env, self._outbox)
        except (Error, ImportError) as error:
            if not built_in_a_call():
                raise
            self._refused = error
            return
        self._functions = self._functions_on(self._outbox)
        self._foreground = Foreground(self._env, self.config, claims_alone=self._outbox.write_lock is not None)
        self._insight = Insight(self._outbox)
        self._loops = Loops(self._outbox, self._foreground, self)
        wake_on_commit(self._outbox)

    def _functions_on(self, outbox: Outbox) -> Functions:
        outbox.functions = functions = Functions(self._router, self.config, is_async=outbox.is_async)
        return functions

    def _outbox_on(
        self,
        engine: "Engine | AsyncEngine | URL | str | None",
        listen: bool | URL | str,
        cron: CronSource,
        observers: Iterable[Observer],
    ) -> Outbox:
        url = os.environ.get("HOOKWARE_DATABASE_URL") or DEFAULT_DATABASE_URL
        entries = entries_of(cron)
        outbox = Outbox(
            url if engine is None else engine,
            env=self._env,
            config=self.config,
            events=self.events,
            on_begin=refuse_second_writer,
            listen=listen,
        )
        outbox.cron_entries = partial(all_entries, self._router, entries)
        for observer in observers:
            observer.observe(outbox)
        return outbox

    @property
    def inspector(self) -> Inspector:
        """Look at stored tasks, run dead ones again, delete them."""
        return self._outbox.store

    @property
    def insight(self) -> Insight:
        """Ask how the installation is, why a task does not run, and what is wrong; act on many tasks."""
        return self._insight

    @property
    def cron(self) -> Cron:
        """Look at the cron entries, run one now, pause it."""
        return Cron(self._outbox)

    @property
    def processing(self) -> Processing | None:
        """The loops that run tasks in this process, while they do; for whoever holds the app's lifespan."""
        processing = self._loops.processing
        return processing if isinstance(processing, Processing) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if self._refused is not None:
            if scope["type"] == "lifespan":
                await fail_startup(self._refused, receive, send)
            raise self._refused
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "lifespan":
                await self._lifespan(scope, receive, send)
            case "websocket":
                await self._websocket(scope, receive, send)
            case _:
                await self.app(scope, receive, send)

    # Requests.

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        delivery, path = delivery_in(scope), _route_path(scope)
        if self._dashboard is not None and delivery is None and is_for_dashboard(path):
            await self._dashboard(dashboard_scope(scope, path), receive, send)
            return
        handler = self._find(path)
        app = self.app if handler is None else handler.handle
        if delivery is not None:
            unit = UnitOfWork(self._outbox, delivery)
            await serve_delivery(app, unit, delivery, scope, receive, send)
        elif handler is not None and not handler.public:
            await forbid(send)
        else:
            await self._loops.entered()
            unit = UnitOfWork(self._outbox, misplaced=await self._misplaced(scope), scope=scope)
            with self._foreground.request(send) as noting_send:
                await serve_request(app, unit, _cleaned(scope), receive, noting_send)
            await self._loops.served()

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._find(_route_path(scope)) is not None:
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        _in_no_request()
        await self.app(_cleaned(scope), receive, send)

    def _find(self, path: str) -> "TaskHandler[..., Any] | Functions | None":
        handler = self._router.find(path)
        if handler is None and path == DEFERRED_URL and self._functions.exist:
            return self._functions
        return handler

    async def _misplaced(self, scope: Scope) -> str | None:
        """Notice requests that come without a lifespan; say why no task may be added, if none may."""
        if self._outbox.seen:
            return None
        if "app_root_path" in scope:
            return _MOUNTED
        await self._outbox.prepare()
        if not self._loops.enter_without_lifespan(scope.get("app") or self):
            self._outbox.warn_once("no lifespan", _NO_LIFESPAN)
        return None

    # Lifespan.

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def start(loops: TaskGroup) -> None:
            self._started = True
            state = dict(scope.get("state") or {})
            target = Target(app=outermost or self, state=state, calls=loops, direct=direct)
            await self._loops.start(loops, target)
            self._announce()

        # Added to a framework's stack, the whole app is entered again. Outermost, this layer is, and nothing lies
        # between it and the task handlers.
        outermost: ASGIApp | None = scope.get("app")  # before an app that it wraps names itself
        direct = nowhere if outermost is not None else DirectRoutes(self._router, self._outbox).find
        _in_no_request()
        lifespan = Lifespan(self.app, prepare=self._prepare, start=start, stop=self._loops.stop, close=self._close)
        if (notice := scope.get(NOTICE_KEY)) is not None:
            notice(self)
        await lifespan(scope, receive, send)

    async def _prepare(self) -> None:
        self._router.check_sessions(is_async=self._outbox.is_async)
        await self._outbox.prepare()
        self._outbox.seen = self._outbox.running = True
        self._started = False

    async def _close(self) -> None:
        await self._loops.close()
        # Some servers serve on after a lifespan that broke before its start: then nobody dispatches.
        self._outbox.seen = self._started
        await self._outbox.close()

    def _announce(self) -> None:
        handlers = f"{len(self._router)} task handler{'' if len(self._router) == 1 else 's'}"
        entries = len(self._outbox.cron_entries())
        cron = f", {entries} cron entr{'y' if entries == 1 else 'ies'}" if entries else ""
        dispatch = "" if self.config.dispatch else ", dispatch off"
        line = f"hookware: {handlers}{cron}, {self._outbox.address}{dispatch}"
        if _logger.isEnabledFor(logging.INFO):
            _logger.info("%s", line)
        elif not _logger.hasHandlers():  # servers set up only their own loggers: say it all the same
            print(line, file=sys.stderr)  # noqa: T201 - the one line of start-up output


def _check_types(app: object, router: object) -> None:
    if not callable(app):
        raise ConfigurationError(
            f"Hookware wraps an ASGI app, got {app!r}: write Hookware(app, engine=engine), or Hookware(engine=engine) "
            "where there is no app"
        )
    if not isinstance(router, TaskRouter):
        raise ConfigurationError(
            f"router= must be a hookware.TaskRouter, got {router!r}: routers of a framework belong to its app"
        )


def _in_no_request() -> None:
    """Let what the app starts from here on know that it is in no request, rather than not know of any."""
    current_unit.set(None)


def _cleaned(scope: Scope) -> Scope:
    """Give a network scope without headers and keys that only hookware may set; the very same if there are none."""
    headers = scope.get("headers", ())
    kept = strip_internal(headers)
    if kept is headers and SCOPE_KEY not in scope:
        return scope
    clean = {name: value for name, value in scope.items() if name != SCOPE_KEY}
    clean["headers"] = kept
    return clean


def _route_path(scope: Scope) -> str:
    """Give the path below the prefix that a proxy or server was told about."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    if prefix and path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
        return path[len(prefix) :] or "/"
    return path
