"""Tell a conflict between concurrent transactions from a real error: the one is tried again, the other is not."""

from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from hookware.errors import TransientError

_SERIALIZATION_FAILURE = "40001"

_SQLSTATES = {_SERIALIZATION_FAILURE, "40P01", "55P03"}
"""Serialization failure, deadlock, lock not available."""

_SQLITE_CODES = {5, 6}
"""SQLITE_BUSY and SQLITE_LOCKED, without their extensions."""

_COLLISION_SQLSTATES = {"23505", "23P01"}
"""A value that must be unique was there already, or one that another excludes."""

_COLLISION_SQLITE_CODES = {1555, 2067}
"""SQLITE_CONSTRAINT_PRIMARYKEY and SQLITE_CONSTRAINT_UNIQUE."""


def is_conflict(error: BaseException) -> bool:
    """Say whether the database refused a transaction because of another one."""
    if isinstance(error, TransientError):
        return True
    if not isinstance(error, DBAPIError) or error.orig is None:
        return False
    sqlstate, sqlite_code = _codes(error.orig)
    return (
        sqlstate in _SQLSTATES
        or (sqlite_code is not None and sqlite_code & 0xFF in _SQLITE_CODES)
        or (sqlite_code is None and "database is locked" in str(error.orig))
    )


def is_collision(error: BaseException) -> bool:
    """Say whether a row was refused because of one that is there already.

    Two transactions that look for a row, find none and insert it end like this: then one more try finds it.
    """
    if not isinstance(error, DBAPIError) or error.orig is None:
        return False
    sqlstate, sqlite_code = _codes(error.orig)
    return sqlstate in _COLLISION_SQLSTATES or sqlite_code in _COLLISION_SQLITE_CODES


def conflict_in(error: BaseException) -> str | None:
    """Give the text of a conflict that `error` is, holds in its group, or was raised from; None if there is none."""
    return _text_in(error, is_conflict)


def collision_in(error: BaseException) -> str | None:
    """Do the same for a collision."""
    return _text_in(error, is_collision)


def sees_snapshot(error: BaseException) -> bool:
    """Say whether a transaction was refused for what has changed since its begin: at READ COMMITTED none ever is."""
    return _text_in(error, _is_serialization_failure) is not None


def _is_serialization_failure(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and _codes(error.orig)[0] == _SERIALIZATION_FAILURE


def _codes(original: object) -> tuple[object, int | None]:
    """Give the SQLSTATE and SQLite's code, of which a driver has one at most."""
    sqlstate = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    sqlite_code = getattr(original, "sqlite_errorcode", None)
    return sqlstate, sqlite_code if isinstance(sqlite_code, int) else None


def _text_in(error: BaseException, is_it: Callable[[BaseException], bool]) -> str | None:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting and len(seen) < 100:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if is_it(current):
            return str(getattr(current, "orig", current))
        waiting += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
    return None
