"""Tasks that join the transaction of a Connection, which has no session to carry them."""

import weakref
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, event, insert

from hookware.core.task import NewTask
from hookware.store.sql.outbox import Outbox
from hookware.store.sql.row_events import refuse_conflict
from hookware.store.sql.rows import to_rows
from hookware.store.sql.tables import task_table

_ADDED: Final = "hookware.added"


def insert_on(connection: Connection, tasks: Sequence[NewTask], outbox: Outbox) -> None:
    """Insert tasks in the transaction that a Connection has open."""
    outbox.check_schema(connection)
    for task in tasks:
        if task.keys.on_conflict == "raise":
            refuse_conflict(connection, task.queue_name, task.keys.dedup_key)
    stamp_us = outbox.stamp_us()
    connection.execute(insert(task_table), to_rows(tasks, stamp_us))
    connection.info[_ADDED] = connection.info.get(_ADDED, 0) + len(tasks)


def wake_on_commit(outbox: Outbox) -> None:
    """Wake the dispatcher when a Connection that `add(connection=...)` wrote to commits."""
    living = weakref.ref(outbox)  # the engine may outlive the Hookware, and must not keep it

    def committed(connection: Connection) -> None:
        count, here = connection.info.pop(_ADDED, 0), living()
        if here is not None:
            here.committed(count)

    def rolled_back(connection: Connection) -> None:
        if not connection.invalidated:  # whose info is gone, and may not be asked for
            connection.info.pop(_ADDED, None)

    event.listen(outbox.sync_engine, "commit", committed)
    event.listen(outbox.sync_engine, "rollback", rolled_back)
