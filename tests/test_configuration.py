"""A wrong configuration stops the server at start-up, and the message says what to do instead."""

import math
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter
from sqlalchemy import create_engine, make_url
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import sessionmaker
from sqlmodel import Session
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from hookware import Hookware, QueueSettings, TaskRetryOptions, taskqueue
from hookware.errors import ConfigurationError, InvalidQueueNameError
from tests.asgi import request
from tests.running import ROOT, eventually, serve
from tests.serving import StartupFailedError, serving

FILE = "sqlite:///app.db"


# Each as a server's operator meets it.

_HEAD = """
import sqlite3
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.applications import Starlette
from hookware import Hookware, task_handler

app = Starlette()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """Lines of an app, and words of what the server has to say about it."""

    code: str
    says: str
    needs: str = _HEAD


def added(arguments: str, **case: str) -> Mistake:
    return Mistake(code=f"app.add_middleware(Hookware, {arguments})", **case)


MISTAKES = {
    "no tables": added(
        "engine='sqlite:///app.db', create_tables=False",
        says="the database has no table hookware_task, hookware_name.*: run SQLModel.metadata.create_all",
    ),
    "autocommit": added(
        "engine=create_engine('sqlite:///app.db', isolation_level='AUTOCOMMIT')",
        says="isolation level is AUTOCOMMIT.* Leave isolation_level= out of create_engine",
    ),
    "in memory": added("engine=create_engine('sqlite://')", says='is a database in memory.* Use a file: "sqlite:'),
    "no folder": added(
        "engine='sqlite:///nowhere/app.db'",
        says="nowhere/app.db cannot be used.* Check the URL, that its folder exists",
    ),
    "no folder, asyncio": added(
        "engine=create_async_engine('sqlite+aiosqlite:///nowhere/app.db')",
        says="nowhere/app.db cannot be used.* Check the URL, that its folder exists",
    ),
    "no database": added("engine='sqlite:///main.py'", says="main.py cannot be used: file is not a database"),
    "read-only": Mistake(
        code="sqlite3.connect('app.db').execute('CREATE TABLE mine (id)')\n"
        "app.add_middleware(Hookware, engine='sqlite:///file:app.db?mode=ro&uri=true')",
        says="attempt to write a readonly database.* that this user may create and write there",
    ),
    "Session of an AsyncEngine": Mistake(
        code="@task_handler('/worker')\ndef worker(session: Session) -> None: ...\n"
        "app.add_middleware(Hookware, engine=create_async_engine('sqlite+aiosqlite:///app.db'))",
        says="task handler worker takes a Session, but Hookware was given an AsyncEngine: take an AsyncSession",
    ),
    "AsyncSession of an Engine": Mistake(
        code="@task_handler('/worker')\nasync def worker(session: AsyncSession) -> None: ...\n"
        "app.add_middleware(Hookware, engine='sqlite:///app.db')",
        says="task handler worker takes an AsyncSession, but Hookware was given a synchronous engine: take a Session",
    ),
    "an option": added("concurrency=0", says="concurrency must be a whole number of at least 1, got 0"),
    "an option, wrapped": Mistake(code="app = Hookware(app, concurrency=0)", says="concurrency must be a whole number"),
    "another driver": added(
        "engine='postgresql+psycopg2://me:secret@db.example/app'",
        says=r"\(psycopg, asyncpg\), and cannot use postgresql\+psycopg2://me:\*\*\*@db.example/app: pass an engine",
    ),
    "no greenlet": Mistake(
        needs="import sys\nsys.modules['greenlet'] = None\n"
        "from starlette.applications import Starlette\nfrom hookware import Hookware\napp = Starlette()\n",
        code="app.add_middleware(Hookware, engine='sqlite+aiosqlite:///app.db')",
        says=r"no driver for .*install hookware\[async\]",
    ),
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, "subprocess.Popen[str]"]]:
    """Start one server for each mistake, all at once: each is a second of imports."""
    started = {}
    for name, mistake in MISTAKES.items():
        folder = tmp_path_factory.mktemp("mistake")
        (folder / "main.py").write_text(f"{mistake.needs}\n{mistake.code}\n")
        started[name] = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "main:app", "--port", "0"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_a_server_ends_at_start_up_and_says_what_to_do(servers: dict[str, "subprocess.Popen[str]"], name: str) -> None:
    output, _ = servers[name].communicate(timeout=100)
    status = servers[name].returncode
    assert status in (1, 3), output  # uvicorn's for an app that cannot be imported, and for a failed start-up
    assert re.search(MISTAKES[name].says, output), output
    assert "startup complete" not in output
    assert "secret" not in output
    if status == 3:  # one line is enough: nobody needs to see where in hookware it was found
        assert "Traceback" not in output
        assert output.count("hookware cannot start") == 1


# What an engine may be.


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ("app.db", "the database URL 'app.db' cannot be read: write it like"),
        ("", "cannot be read"),
        ("me:secret@db.example", "^the database URL given cannot be read"),
        ("sqlite+nonesuch:///app.db", r"SQLite \(pysqlite, aiosqlite\) or PostgreSQL.* cannot use .*sqlite\+nonesuch"),
        ("postgres://me:secret@db.example/app", r"cannot use postgres://me:\*\*\*@db.example/app"),
        ("postgresql+psycopg2://db.example/app", r"cannot use postgresql\+psycopg2"),
        (make_url("mysql+pymysql://db.example/app"), "cannot use mysql"),
        (
            "mysql+pymysql://me:secret@db.example/app",
            r"SQLite .* or PostgreSQL .* cannot use mysql\+pymysql://me:\*\*\*@",
        ),
        ("mariadb+aiomysql://db.example/app", r"SQLite .* or PostgreSQL .* cannot use mariadb\+aiomysql"),
        ("sqlite+aiosqlite:///:memory:", "in memory"),
        (sessionmaker(), "must be an Engine, an AsyncEngine or a database URL, got sessionmaker"),
        (Path("app.db"), r"database URL, got .*Path\('app.db'\): pass what create_engine\(\) gave you"),
        (Engine, "must be an Engine"),
        (Session(), "must be an Engine"),
        (0, "must be an Engine"),
    ],
    ids=lambda value: repr(value).partition(" object at ")[0],
)
def test_what_is_no_engine_is_refused(engine: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        Hookware(engine=engine)
    assert "secret" not in str(refused.value)


def test_a_connection_is_no_engine(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/app.db")
    with engine.connect() as connection, pytest.raises(ConfigurationError, match="must be an Engine"):
        Hookware(engine=connection)  # type: ignore[arg-type]  # that is the mistake
    engine.dispose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("url", ["sqlite:///{}", "sqlite+aiosqlite:///{}"])
@pytest.mark.parametrize("kind", [str, make_url])
async def test_a_url_makes_an_engine_that_ends_with_the_lifespan(tmp_path: Path, url: str, kind: Any) -> None:
    hookware = Hookware(engine=kind(url.format(tmp_path / "app.db")))
    async with serving(hookware):
        assert hookware._outbox.is_async is ("aiosqlite" in url)
        await taskqueue.add_async(url="/worker", countdown=60)
    assert hookware._outbox.sync_engine.pool.checkedin() == 0  # type: ignore[attr-defined]  # a QueuePool


def test_without_an_engine_the_environment_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKWARE_DATABASE_URL", "sqlite:///elsewhere.db")
    assert Hookware()._outbox.address == "sqlite:///elsewhere.db"
    monkeypatch.setenv("HOOKWARE_DATABASE_URL", "mysql://db.example/app")
    with pytest.raises(ConfigurationError, match="cannot use mysql"):
        Hookware()
    monkeypatch.setenv("HOOKWARE_DATABASE_URL", "")
    assert Hookware()._outbox.address == "sqlite:///hookware.db"


async def test_a_missing_driver_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiosqlite", None)
    with pytest.raises(ConfigurationError, match=r"aiosqlite.* install hookware\[async\]"):
        Hookware(engine="sqlite+aiosqlite:///app.db")


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_an_async_engine_on_trio_is_refused(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/app.db")
    with pytest.raises(StartupFailedError, match=r"needs asyncio.* give Hookware a synchronous Engine"):
        async with serving(Hookware(engine=engine)):
            pass


async def test_tables_of_another_shape_are_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "app.db")
    connection.executescript("CREATE TABLE hookware_task (id INTEGER); CREATE TABLE hookware_name (id INTEGER)")
    connection.close()
    with pytest.raises(
        StartupFailedError,
        match=r"table hookware_task has no column queue_name, .* an earlier version of hookware made it",
    ):
        async with serving(Hookware(engine=f"sqlite:///{tmp_path}/app.db")):
            pass


# Options.


def option_of(name: str, value: object) -> dict[str, Any]:
    return {name: value}


@pytest.mark.parametrize("value", [0, -1, 1.5, math.nan, math.inf, True, "10", None], ids=repr)
@pytest.mark.parametrize("option", ["concurrency", "crash_limit", "max_body_bytes"])
def test_a_count_is_a_whole_number(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must be a whole number of at least 1, got {value!r}"):
        Hookware(engine=FILE, **option_of(option, value))


def test_a_body_has_a_limit_that_no_option_lifts() -> None:
    with pytest.raises(ConfigurationError, match="max_body_bytes may be 1048576 at most, got 1048577: store larger"):
        Hookware(engine=FILE, max_body_bytes=1_048_577)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, 1e10, True, "10", None], ids=repr)
@pytest.mark.parametrize(
    "option", ["lease_seconds", "poll_seconds", "dispatch_deadline_seconds", "drain_seconds", "tombstone_seconds"]
)
def test_a_time_is_a_number_of_seconds(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must be a number of seconds from 0.* got {value!r}"):
        Hookware(engine=FILE, **option_of(option, value))


@pytest.mark.parametrize("option", ["lease_seconds", "poll_seconds", "dispatch_deadline_seconds"])
def test_a_time_that_must_pass_is_not_zero(option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must be a number of seconds from 0.01"):
        Hookware(engine=FILE, **option_of(option, 0))


def test_what_may_be_zero_may_be_zero() -> None:
    Hookware(engine=FILE, drain_seconds=0, tombstone_seconds=0)


@pytest.mark.parametrize("option", ["create_tables", "dispatch", "foreground_first"])
def test_a_switch_is_no_text(option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must be True or False, got 'false'"):
        Hookware(engine=FILE, **option_of(option, "false"))


@pytest.mark.parametrize(
    "queues",
    [[{"name": "mail"}], [None], 5, [QueueSettings(name="mail", retry={})]],  # type: ignore[arg-type]  # a mistake
    ids=repr,
)
def test_queues_are_queue_settings(queues: Any) -> None:
    with pytest.raises(ConfigurationError, match=r'takes a list of QueueSettings\(name="mail"'):
        Hookware(engine=FILE, queues=queues)


def test_a_queue_is_set_once_and_by_a_name_that_tasks_can_have() -> None:
    retry = TaskRetryOptions(task_retry_limit=3)
    with pytest.raises(ConfigurationError, match="the queue 'mail' is set twice in queues=: leave one out"):
        Hookware(engine=FILE, queues=[QueueSettings(name="mail"), QueueSettings(name="mail", retry=retry)])
    with pytest.raises(InvalidQueueNameError, match="the queue name 'my mail' is refused"):
        Hookware(engine=FILE, queues=[QueueSettings(name="my mail")])
    hookware = Hookware(engine=FILE, queues=[QueueSettings(name="mail", retry=retry)])
    assert hookware.config.queue("mail").retry is retry


@pytest.mark.parametrize("app", [create_engine(FILE), FILE, "main:app", 0], ids=repr)
def test_what_is_no_app_is_refused(app: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"wraps an ASGI app, got .* write Hookware\(app, engine=engine\)"):
        Hookware(app, engine=FILE)


def test_a_router_is_hookwares(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"router= must be a hookware\.TaskRouter, got <fastapi"):
        Hookware(engine=FILE, router=APIRouter())  # type: ignore[arg-type]  # that is the mistake


# Who dispatches.


@pytest.mark.parametrize(("said", "expected"), [("on", True), ("off", False), ("", None), (None, None)])
@pytest.mark.parametrize("given", [True, False])
def test_the_environment_decides_over_the_argument(
    said: str | None, expected: bool | None, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOOKWARE_DISPATCH", raising=False)
    if said is not None:
        monkeypatch.setenv("HOOKWARE_DISPATCH", said)
    assert Hookware(engine=FILE, dispatch=given).config.dispatch is (given if expected is None else expected)


@pytest.mark.parametrize("said", ["true", "ON", "0", "off "])
def test_the_environment_says_on_or_off(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKWARE_DISPATCH", said)
    with pytest.raises(ConfigurationError, match=f"HOOKWARE_DISPATCH must be on or off, got {said!r}"):
        Hookware(engine=FILE)


# Where Starlette makes the layer, inside the server's first call.


async def test_a_layer_that_starlette_makes_says_so_by_the_lifespan() -> None:
    app = Starlette(middleware=[Middleware(Hookware, engine=FILE, concurrency=0)])
    with pytest.raises(StartupFailedError, match="hookware cannot start: concurrency must be"):
        async with serving(app):
            pass


async def test_a_layer_that_was_refused_serves_nothing() -> None:
    app = Starlette(middleware=[Middleware(Hookware, engine=FILE, concurrency=0)])
    for _ in range(2):
        answer = await request(app, "/")
        assert answer.status == 500
        assert isinstance(answer.error, ConfigurationError)


def test_the_test_client_raises_what_is_wrong() -> None:
    for mistake in ({"concurrency": 0}, {"engine": "sqlite:///nowhere/app.db"}):
        app = Starlette(middleware=[Middleware(Hookware, **mistake)])
        with pytest.raises(ConfigurationError), TestClient(app):
            pass


# Two of them.


@pytest.mark.slow
def test_an_add_outside_a_request_has_to_know_whose_it_is(tmp_path: Path) -> None:
    script = """
from hookware import Hookware, taskqueue
from hookware.errors import ConfigurationError

def refused():
    try:
        taskqueue.add(url="/worker")
    except ConfigurationError as error:
        return str(error)

none = refused()
assert "hookware = Hookware(engine=engine, dispatch=False)" in none, none
one = Hookware(engine="sqlite:///one.db")
assert refused() is None
two = Hookware(engine="sqlite:///two.db")
several = refused()
assert several.startswith("2 Hookware instances") and "pass session= or connection=" in several, several
"""
    run(script, tmp_path)


# The base installation.


def run(script: str, folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_importing_hookware_imports_nothing_of_an_extra(tmp_path: Path) -> None:
    extras = "'greenlet', 'aiosqlite', 'sqlalchemy.ext.asyncio', 'sqlmodel.ext.asyncio.session', 'cronsim', 'yaml'"
    script = f"""
import sys
from hookware import Hookware
from sqlalchemy import create_engine
Hookware(engine=create_engine("sqlite:///app.db"))
Hookware(engine="sqlite:///app.db")
loaded = set(sys.modules) & {{{extras}, 'hookware.store.sql.async_runner'}}
assert not loaded, loaded
"""
    run(script, tmp_path)


_BASE_APP = """
import sys
for name in ("greenlet", "aiosqlite", "sqlalchemy.ext.asyncio", "sqlmodel.ext.asyncio.session"):
    sys.modules[name] = None

from sqlmodel import Field, Session, SQLModel, create_engine
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from hookware import Hookware, task_handler

engine = create_engine("sqlite:///app.db")

class Effect(SQLModel, table=True):
    key: str = Field(primary_key=True)

SQLModel.metadata.create_all(engine)

def order(request):
    with Session(engine) as session:
        worker.add("mine", session=session)
        session.commit()
    return Response()

@task_handler("/worker")
def worker(key: str, session: Session) -> None:
    session.add(Effect(key=key))

app = Starlette(routes=[Route("/", order, methods=["POST"])])
app.add_middleware(Hookware, engine=engine)
"""


@pytest.mark.slow
def test_a_synchronous_app_needs_no_extra(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(_BASE_APP)
    with serve("main:app", cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}) as server:
        assert httpx2.post(server.url).status_code == 200
        connection = sqlite3.connect(tmp_path / "app.db")
        eventually(lambda: connection.execute("SELECT key FROM effect").fetchall() == [("mine",)])
        connection.close()
