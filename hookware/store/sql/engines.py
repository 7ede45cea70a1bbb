"""The user's engine, and hookware's own on the same database: a full pool of the app never holds up a settle."""

from collections.abc import Callable
from inspect import getclosurevars
from typing import TYPE_CHECKING, Final, cast

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool, Pool

from hookware.errors import ConfigurationError
from hookware.store.sql import postgresql, sqlite

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_DRIVERS: Final[dict[str, dict[str, str | None]]] = {
    "sqlite": {"pysqlite": "sqlite", "aiosqlite": "sqlite"},
    "postgresql": {
        "psycopg": "postgresql+psycopg",
        "psycopg_async": "postgresql+psycopg",
        "asyncpg": None,
    },
}
"""The drivers that work, by database, and for each the URL scheme of its synchronous twin."""


def engine_of(given: object) -> "Engine | AsyncEngine":
    """Give the engine that a user passed, or make the one of a URL.

    Raises:
        ConfigurationError: it is no engine, or none that tasks can be stored with; the message says what to pass.
    """
    engine = _made_of(given) if isinstance(given, str | URL) else given
    # An AsyncEngine is known by its looks, because importing it needs an optional extra.
    is_async = hasattr(engine, "sync_engine") and not hasattr(engine, "sync_connection")
    sync_engine = engine.sync_engine if is_async else engine  # type: ignore[attr-defined]  # looked at just now
    if not isinstance(sync_engine, Engine):
        raise ConfigurationError(
            f"engine= must be an Engine, an AsyncEngine or a database URL, got {given!r}: pass what create_engine() "
            'gave you, or a URL like "sqlite:///app.db"'
        )
    _refuse_other_databases(sync_engine.url)
    return cast("Engine | AsyncEngine", engine)


def _made_of(given: str | URL) -> "Engine | AsyncEngine":
    try:
        url = make_url(given)
    except ArgumentError:
        # What cannot be read cannot be shown without its password either.
        shown = "given" if "@" in str(given) else repr(given)
        raise ConfigurationError(f'the database URL {shown} cannot be read: write it like "sqlite:///app.db"') from None
    if url.drivername == "postgresql":  # for SQLAlchemy 2.0 that means psycopg2
        url = url.set(drivername="postgresql+psycopg")
    _refuse_other_databases(url)
    try:
        if not url.get_dialect().is_async:
            return create_engine(url)
        from sqlalchemy.ext.asyncio import create_async_engine

        return create_async_engine(url)
    except (ImportError, ArgumentError) as error:
        raise ConfigurationError(
            f"no driver for the database URL {url!r}: {error}. Write sqlite:/// for a file; install hookware[async] "
            "for sqlite+aiosqlite:///, and hookware[postgres] for postgresql+psycopg://"
        ) from error


def _refuse_other_databases(url: URL) -> None:
    drivers = _DRIVERS.get(url.get_backend_name(), {})
    name = url.drivername.partition("+")[2] or _default_driver(url)
    if name not in drivers:
        raise ConfigurationError(
            f"hookware stores tasks in SQLite (pysqlite, aiosqlite) or PostgreSQL (psycopg, asyncpg), and cannot use "
            f'{url!r}: pass an engine or URL such as "sqlite:///app.db" or "postgresql+psycopg://user@host/name"'
        )


def _default_driver(url: URL) -> str:
    try:
        return str(url.get_dialect().driver)
    except (ImportError, ArgumentError):
        return ""


def has_synchronous(user_engine: "Engine | AsyncEngine") -> bool:
    """Say whether `own_engine` can reach the user's database just as the user's engine does.

    Of an AsyncEngine, where its driver has a synchronous twin and its URL says all: connect_args are the driver's own,
    and so may be what listeners do with its connections.
    """
    engine = user_engine if isinstance(user_engine, Engine) else user_engine.sync_engine
    if not engine.dialect.is_async or engine.dialect.name == "sqlite":
        return True
    return _twin(engine) is not None and _is_made_of_url(engine) and not _has_listeners(engine)


def own_engine(user_engine: "Engine | AsyncEngine", *, pooled: bool = True) -> Engine:
    """Give a synchronous engine with connections of its own, made as the user's are: creator, listeners, options.

    Of an AsyncEngine it is one with the synchronous twin of its driver.
    """
    engine = user_engine if isinstance(user_engine, Engine) else user_engine.sync_engine
    if engine.dialect.is_async:
        twin = _twin(engine)
        if twin is None:
            raise ConfigurationError(f"the driver {engine.url.drivername!r} has no synchronous twin")
        poolless = {"poolclass": NullPool} if isinstance(engine.pool, NullPool) else {}
        url, options = engine.url.set(drivername=twin), engine.get_execution_options()
        engine = create_engine(url, execution_options=options, **poolless)
    pool = own_pool(engine, pooled=pooled)
    return configured(create_engine(engine.url, pool=pool, execution_options=copied_options(engine)))


def own_pool(engine: Engine, *, pooled: bool = True) -> Pool:
    """Give a pool of hookware's own that opens connections as an engine does."""
    if engine.dialect.name != "sqlite":
        return postgresql.own_pool(engine, pooled=pooled)
    # The creator holds connect_args, which the URL does not; recreate() keeps it, and the pool's listeners.
    return engine.pool.recreate() if pooled else NullPool(engine.pool._creator, dialect=engine.dialect)


def configured(own: Engine) -> Engine:
    """Set up an engine of hookware's own for its database."""
    (sqlite if own.dialect.name == "sqlite" else postgresql).configure(own)
    return own


def _twin(engine: Engine) -> str | None:
    return _DRIVERS[engine.dialect.name][engine.dialect.driver]


def _is_made_of_url(engine: Engine) -> bool:
    creator = cast("Callable[..., object]", engine.pool._creator)
    given = getclosurevars(creator).nonlocals.get("cparams")  # SQLAlchemy keeps them nowhere else
    return given is not None and dict(given) == engine.dialect.create_connect_args(engine.url)[1]


def _has_listeners(engine: Engine) -> bool:
    """Say whether somebody listens to how connections are opened or taken, beside SQLAlchemy itself."""
    plain = create_engine(engine.url.set(drivername=_twin(engine)))
    theirs, ordinary = engine.pool.dispatch, plain.pool.dispatch
    names = ("first_connect", "connect", "checkout")
    more = any(len(list(getattr(theirs, name))) > len(list(getattr(ordinary, name))) for name in names)
    return more or bool(list(engine.dialect.dispatch.do_connect))


def copied_options(engine: Engine) -> dict[str, object]:
    """Give an engine's execution options, without what belongs to that engine alone."""
    belongs_to_it = (sqlite.CONFIGURED, "isolation_level")
    options = {name: value for name, value in engine.get_execution_options().items() if name not in belongs_to_it}
    return options if engine.dialect.name == "sqlite" else {**options, "isolation_level": postgresql.ISOLATION_LEVEL}
