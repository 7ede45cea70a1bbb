"""What another connection sees in a database: the proof of what was committed."""

from sqlalchemy import Column, MetaData, String, Table

from tests.databases import Database

business_table = Table("business", MetaData(), Column("key", String, primary_key=True))
"""The user's own data; a task's payload and a row's key are the same kind of thing here."""


class Stored:
    """Reads through a connection of its own, without SQLAlchemy."""

    def __init__(self, database: Database) -> None:
        self._look = database.look()

    def task_keys(self) -> list[str]:
        """The payloads of all stored tasks."""
        return [bytes(body).decode() for body in self._look.rows("SELECT body FROM hookware_task ORDER BY id")]

    def keys(self) -> set[str]:
        """The payloads of all tasks and the keys of all business rows."""
        return {*self.task_keys(), *self._look.rows("SELECT key FROM business")}

    def close(self) -> None:
        """Give the connection back."""
        self._look.close()
