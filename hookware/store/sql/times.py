"""The database's time: what it is, and how a new row gets it without a question to the database.

Only the database's clock decides when a task is due and when a lease ends: hosts disagree. SQLite has no host of its
own, so its time is this host's. On PostgreSQL a new row may say "now" or "in ten seconds", and the INSERT itself turns
that into a time: adding a task asks nothing, and a batch stays one statement.
"""

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import BigInteger, BindParameter, Connection, TypeDecorator, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement

from hookware.env import Env

Clock = Callable[[Connection], int]
"""Gives the database's time, in microseconds since the epoch, over a connection that is in a transaction."""

STATEMENT_SECONDS: Final = 15
"""How long one of hookware's own statements may take, waiting for locks included."""

_ORIGIN: Final = -(2**62)
_RANGE: Final = 2**60
"""Times in this range above the origin are relative to the database's now: 144,000 years before the epoch."""

_NOW_SQL: Final = "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint"

_NOW = text(f"SELECT {_NOW_SQL}")
# The limits hold for this transaction only: behind pgbouncer a connection is another client's the next moment.
_NOW_AND_LIMITS = text(
    f"SELECT {_NOW_SQL}, set_config('statement_timeout', '{STATEMENT_SECONDS}s', true), "
    f"set_config('idle_in_transaction_session_timeout', '{STATEMENT_SECONDS}s', true)"
)


def postgresql_clock(connection: Connection) -> int:
    """Give PostgreSQL's time, and limit the time of what follows in the transaction, which is hookware's own."""
    now_us: int = connection.execute(_NOW_AND_LIMITS).one()[0]
    return now_us


def postgresql_time(connection: Connection) -> int:
    """Give PostgreSQL's time in a transaction of the user's, whose limits are the user's affair."""
    now_us: int = connection.execute(_NOW).scalar_one()
    return now_us


def ahead_with(env: Env, clock: Clock) -> Clock:
    """Give a clock that is ahead of the database's as far as `env` is ahead of its host's, by a test's doing."""
    return lambda connection: clock(connection) + env.ahead_us


def from_now(us: int) -> int:
    """Give what stands, in a new row, for `us` microseconds after the moment of its INSERT."""
    return _ORIGIN + max(0, min(us, _RANGE))


class _Resolved(ColumnElement[int]):
    """A bound value of a `DatabaseTime`, made absolute by the database."""

    inherit_cache = True
    _traverse_internals = []  # noqa: RUF012 - SQLAlchemy's way to say that nothing of it is a key

    def __init__(self, given: BindParameter[int]) -> None:
        self.given = given
        self.type = BigInteger()


@compiles(_Resolved)
def _as_it_is(element: _Resolved, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.given, **options)


@compiles(_Resolved, "postgresql")
def _resolved(element: _Resolved, compiler: SQLCompiler, **options: Any) -> str:
    given = compiler.process(element.given, **options)
    resolved = f"CASE WHEN x BETWEEN {_ORIGIN} AND {_ORIGIN + _RANGE} THEN x - ({_ORIGIN}) + {_NOW_SQL} ELSE x END"
    return f"(SELECT {resolved} FROM (SELECT {given}::bigint AS x) AS given)"  # noqa: S608 - a bound value, and our own SQL


class DatabaseTime(TypeDecorator[int]):
    """Microseconds since the epoch, or what `from_now` gives."""

    impl = BigInteger
    cache_ok = True
    # Alembic writes down a type of SQLAlchemy's modules as `sa.` and what repr says. The column is a plain BIGINT, and
    # a migration must not depend on a class of this version of hookware.
    __module__ = "sqlalchemy.types"

    def __repr__(self) -> str:
        return "BigInteger()"

    def bind_expression(self, bindparam: BindParameter[int]) -> ColumnElement[int]:
        """Let the database resolve a relative time."""
        return _Resolved(bindparam)
