"""What to do about a database that cannot be used: said once, at start-up, by what the database itself said."""

from typing import Final

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from hookware.errors import TransientError
from hookware.store.sql.address import shown
from hookware.store.sql.schema import TABLES

_NOT_PERMITTED: Final = "42501"
_UNREACHED: Final = ("08", "28", "3D", "53", "57")
"""Classes of SQLSTATE: no connection, no such user or password, no such database, too many, shutting down."""

_PREPARED: Final = ("26000", "42P05")
"""A prepared statement is not there, or is there already: another connection to the server has taken the place."""


def is_unusable(error: Exception) -> bool:
    """Say whether an error is the database's, or of the way to it; asyncpg's come as they are while it connects."""
    return isinstance(error, DBAPIError | OSError | TransientError) or hasattr(error, "sqlstate")


def unusable(url: URL, error: Exception) -> str:
    """Say that a database cannot be used, why, and what to do; without its password, on one line."""
    said = " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
    why = said.partition(" LINE ")[0].rstrip(".?")  # PostgreSQL quotes the statement after that
    address = shown(url)
    return f"the database {address} cannot be used: {why}. {_advice(url, error)}"


def _advice(url: URL, error: Exception) -> str:
    if url.get_backend_name() == "sqlite":
        return (
            "Check the URL, that its folder exists, that this user may create and write there, and that hookware's "
            "tables, if you make them, are those of this version"
        )
    sqlstate = getattr(getattr(error, "orig", error), "sqlstate", None)
    if sqlstate == _NOT_PERMITTED:
        user = url.username or "this user"
        return (
            f"To let hookware make its tables, GRANT CREATE ON SCHEMA public TO {user}: from PostgreSQL 15 on only the "
            "database's owner may. Or let a migration make them, pass create_tables=False, and GRANT SELECT, INSERT, "
            f"UPDATE, DELETE ON {', '.join(table.name for table in TABLES)} TO {user}"
        )
    if sqlstate in _PREPARED:
        return (
            "Through a pooler in transaction mode, such as PgBouncer, make the engine with "
            'connect_args={"prepare_threshold": None} for psycopg, and for asyncpg with '
            'connect_args={"statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}'
        )
    if sqlstate is None or sqlstate.startswith(_UNREACHED):
        return (
            "Check that the server runs at this host and port, that the database exists (createdb makes it), and that "
            "the user and the password are right"
        )
    return "Check that hookware's tables, if you make them, are those of this version"
