"""The user's engine, and hookware's own on the same database: a full pool of the app never holds up a settle."""

from typing import TYPE_CHECKING, cast

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from hookware.errors import ConfigurationError
from hookware.store.sql import sqlite

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


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
    _refuse_other_databases(url)
    try:
        if not url.get_dialect().is_async:
            return create_engine(url)
        from sqlalchemy.ext.asyncio import create_async_engine

        return create_async_engine(url)
    except (ImportError, ArgumentError) as error:
        raise ConfigurationError(
            f"no driver for the database URL {url!r}: {error}. Write sqlite:///, or install hookware[async] and write "
            "sqlite+aiosqlite:///"
        ) from error


def _refuse_other_databases(url: URL) -> None:
    if url.get_backend_name() != "sqlite":
        raise ConfigurationError(
            f"hookware stores tasks in SQLite only, so far, and cannot use {url!r}: pass the engine or URL of a "
            'SQLite file, such as engine="sqlite:///app.db"'
        )


def own_engine(user_engine: "Engine | AsyncEngine") -> Engine:
    """Give a synchronous engine with connections of its own, made as the user's are: creator, listeners, options.

    Of an AsyncEngine on SQLite or psycopg it is one with the synchronous driver; other asyncio drivers have none.
    """
    engine = user_engine if isinstance(user_engine, Engine) else user_engine.sync_engine
    if engine.dialect.is_async:
        own = _synchronous(engine)
    else:
        # recreate() keeps the creator, with connect_args in it, and the pool's listeners; connections are made as
        # they are needed, and a runner needs few.
        own = create_engine(engine.url, pool=engine.pool.recreate(), execution_options=copied_options(engine))
    if own.dialect.name == "sqlite":
        sqlite.configure(own)
    return own


def _synchronous(engine: Engine) -> Engine:
    if engine.dialect.name == "sqlite":
        url = engine.url.set(drivername="sqlite")
    elif engine.dialect.driver in {"psycopg", "psycopg_async"}:
        url = engine.url.set(drivername="postgresql+psycopg")
    else:
        raise ConfigurationError(
            f"hookware has no synchronous twin of the driver {engine.url.drivername!r} for its own connections: "
            "use sqlite+aiosqlite or postgresql+psycopg"
        )
    return create_engine(url, execution_options=copied_options(engine))


def copied_options(engine: Engine) -> dict[str, object]:
    """Give an engine's execution options, without what belongs to that engine alone."""
    foreign = (item for item in engine.get_execution_options().items() if item[0] != sqlite.CONFIGURED)
    return {name: value for name, value in foreign if name != "isolation_level"}
