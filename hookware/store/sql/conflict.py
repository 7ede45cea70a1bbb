"""Tell a conflict between concurrent transactions from a real error: the one is tried again, the other is not."""

from sqlalchemy.exc import DBAPIError

from hookware.errors import TransientError

_SQLSTATES = {"40001", "40P01", "55P03"}
"""Serialization failure, deadlock, lock not available."""

_SQLITE_CODES = {5, 6}
"""SQLITE_BUSY and SQLITE_LOCKED, without their extensions."""


def is_conflict(error: BaseException) -> bool:
    """Say whether the database refused a transaction because of another one."""
    if isinstance(error, TransientError):
        return True
    if not isinstance(error, DBAPIError) or error.orig is None:
        return False
    original: object = error.orig
    sqlstate = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    sqlite_code = getattr(original, "sqlite_errorcode", None)
    return (
        sqlstate in _SQLSTATES
        or (isinstance(sqlite_code, int) and sqlite_code & 0xFF in _SQLITE_CODES)
        or (sqlite_code is None and "database is locked" in str(original))
    )


def conflict_in(error: BaseException) -> str | None:
    """Give the text of a conflict that `error` is, holds in its group, or was raised from; None if there is none."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting and len(seen) < 100:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if is_conflict(current):
            return str(getattr(current, "orig", current))
        waiting += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
    return None
