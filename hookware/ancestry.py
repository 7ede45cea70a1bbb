"""Where tasks come from: the request that adds them, and if it is a task's, the chain that they go on with."""

from collections.abc import Sequence
from typing import Final

from hookware.core.task import MOST_DEPTH, Draft, Lineage, NewTask
from hookware.errors import ChainTooDeepError
from hookware.store.sql.outbox import Outbox
from hookware.unit_of_work import UnitOfWork

_GROWTH: Final = (
    "tasks add tasks that add more of them than run, {method} {url} for one. If they are not meant to, pause their "
    "queue, and set Hookware(max_chain_depth=...) or the queue's rate"
)


def new_tasks(drafts: Sequence[Draft], outbox: Outbox, unit: UnitOfWork | None) -> list[NewTask]:
    """Give the tasks of one call their ids, and note where they come from.

    Raises:
        ChainTooDeepError: the task that adds them is as deep in its chain as one may be.
    """
    if unit is None:
        return outbox.new_tasks(drafts)
    if unit.delivery is None:
        return outbox.new_tasks(drafts, Lineage(unit.origin))
    parent, limit = unit.delivery.task, outbox.config.max_chain_depth
    depth = min(parent.depth + 1, MOST_DEPTH)
    if limit is not None and depth > limit:
        raise ChainTooDeepError(
            f"task {parent.label} is {parent.depth} tasks deep in a chain of tasks that add tasks, and max_chain_depth "
            f"is {limit}: end the chain, or begin another one in a request; or raise Hookware(max_chain_depth=...)"
        )
    if outbox.growth.added(parent.depth, len(drafts), outbox.env.monotonic()):
        outbox.warn_once("growth", _GROWTH.format(method=parent.method, url=parent.url.partition("?")[0]))
    return outbox.new_tasks(drafts, Lineage(unit.origin, parent.id, depth))
