"""What another connection sees in a database file: the proof of what was committed."""

import sqlite3
from pathlib import Path

from sqlalchemy import Column, MetaData, String, Table

business_table = Table("business", MetaData(), Column("key", String, primary_key=True))
"""The user's own data; a task's payload and a row's key are the same kind of thing here."""


class Stored:
    """Reads through a connection of its own, without SQLAlchemy."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False)

    def task_keys(self) -> list[str]:
        """The payloads of all stored tasks."""
        return [body.decode() for (body,) in self._connection.execute("SELECT body FROM hookware_task ORDER BY id")]

    def keys(self) -> set[str]:
        """The payloads of all tasks and the keys of all business rows."""
        rows = self._connection.execute("SELECT name FROM sqlite_master WHERE name = 'business'").fetchall()
        keys = self._connection.execute("SELECT key FROM business").fetchall() if rows else []
        return {*self.task_keys(), *(key for (key,) in keys)}

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()
