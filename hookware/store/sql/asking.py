"""What a process that asks knows, and the database does not."""

from collections.abc import Callable, Collection
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from hookware.core.queue import QueueSettings
from hookware.store.sql.times import Clock


def _unknown(_owner: str) -> bool:
    return False


class Context(NamedTuple):
    """The database's clock, the settings of a queue, and the configured queues.

    `is_gone`: whether an owner's process is known to be gone.
    """

    clock: Clock
    settings: Callable[[str], QueueSettings]
    configured: Collection[str] = ()
    is_gone: Callable[[str], bool] = _unknown

    def begin(self, connection: Connection) -> int:
        """Begin a look; the database's time."""
        now_us = self.clock(connection)
        keep_to_indexes(connection)
        return now_us


def keep_to_indexes(connection: Connection) -> None:
    """Let PostgreSQL walk along indexes in this transaction, also where it takes the table for smaller than it is.

    Every look here ends after so many entries of an index. A planner whose statistics are of a time when few tasks
    waited would read and sort the whole table instead.
    """
    if connection.dialect.name == "postgresql":
        kinds = ("enable_seqscan", "enable_bitmapscan", "enable_sort")
        connection.execute(select(*(func.set_config(kind, "off", True) for kind in kinds)))
