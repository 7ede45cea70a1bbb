"""What a process that asks knows, and the database does not."""

from collections.abc import Callable, Collection
from typing import NamedTuple

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
