"""Where an operation on a queue runs: in a transaction of its own, on the database of this request or process."""

from typing import TypeVar

from hookware.errors import ConfigurationError
from hookware.store.sql.operation import Operation
from hookware.store.sql.outbox import Outbox, the_outbox
from hookware.unit_of_work import current_unit

R = TypeVar("R")


def perform(operation: Operation[R]) -> R:
    """Do it in this thread, which waits.

    Raises:
        ConfigurationError: there is no Hookware in this process, or several, and this is no request of one of them.
        SecondWriterError: on SQLite, while this request has written and not committed yet: each would wait for the
            other.
        UnknownQueueError: the queue would have to be configured.
    """
    return operation.perform(_outbox(operation))


async def perform_async(operation: Operation[R]) -> R:
    """Do the same without blocking the event loop."""
    return await operation.perform_async(_outbox(operation))


def _outbox(operation: Operation[R]) -> Outbox:
    unit = current_unit.get()
    if unit is None:
        return the_outbox()
    if unit.misplaced is not None:
        raise ConfigurationError(unit.misplaced)
    if operation.writes:
        unit.refuse_second_writer()
    return unit.outbox
