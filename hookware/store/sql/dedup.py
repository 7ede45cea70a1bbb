"""Of waiting tasks with one dedup key, one runs: which, is decided when the first of them is claimed.

So adding takes no lock, and can neither wait for another's transaction nor break one's own commit. The one that runs
has won its name before the others go: a task that cannot run takes none down.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, delete, false, func, select

from hookware.core.dedup import Waiting, survivor, survivors
from hookware.core.lifecycle import State
from hookware.core.task import LeasedTask, NewTask
from hookware.store.base import LATEST_US
from hookware.store.sql import attempts, names
from hookware.store.sql.names import Key, Wish
from hookware.store.sql.read import PENDING, chunks, keyed
from hookware.store.sql.tables import task_table

_MOST_AT_ONCE: Final = 1000
"""Of how many waiting tasks with one key one claim finds the one that runs: who adds them may be quick for hours."""

_columns = task_table.c
_WAITING = (
    # Compared by the database, which minds no text that is none.
    select(_columns.id, func.coalesce(_columns.on_conflict == "replace", false()).label("replaces"))
    .where(PENDING, _columns.queue_name == bindparam("queue"), _columns.dedup_key == bindparam("dedup"))
    .order_by(_columns.created_us, _columns.id)
)
_LOCK = select(_columns.id).where(_columns.id.in_(bindparam("ids", expanding=True)), keyed(State.PENDING))
_LOCK = _LOCK.with_for_update(skip_locked=True)
_DROP = (
    delete(task_table)
    .where(_columns.id.in_(bindparam("ids", expanding=True)), keyed(State.PENDING))
    .returning(_columns.id)
)


class Sorted(NamedTuple):
    """The tasks of a claim that run; the holders of the names of those that lost theirs; and whether others went."""

    tasks: list[LeasedTask]
    beaten: dict[int, int | None]
    has_dropped: bool


def waiting_for(connection: Connection, tasks: Sequence[NewTask]) -> set[Key]:
    """Give those keys of which tasks wait already, for tasks that may not be added then."""
    raising = (task for task in tasks if task.keys.on_conflict == "raise")
    keys = [(task.queue_name, task.keys.dedup_key) for task in raising if task.keys.dedup_key is not None]
    return {key for key in dict.fromkeys(keys) if is_waiting(connection, *key)}


def is_waiting(connection: Connection, queue_name: str, dedup_key: str) -> bool:
    """Say whether a task with this key waits, as far as the transaction can see."""
    given = {"queue": queue_name, "dedup": dedup_key}
    return connection.execute(_WAITING.limit(1), given).first() is not None


def kept(connection: Connection, queue_name: str, dedup_key: str) -> int | None:
    """Give the one that runs of the waiting tasks with this key, whatever their names; None: none is known."""
    given = {"queue": queue_name, "dedup": dedup_key}
    found = connection.execute(_WAITING.limit(_MOST_AT_ONCE), given).all()
    if not found or len(found) == _MOST_AT_ONCE:
        return None
    return survivor([Waiting(row.id, "replace" if row.replaces else "skip") for row in found])


def sort_out(
    connection: Connection, tasks: Sequence[LeasedTask], keys: Mapping[int, Key], now_us: int, tombstone_us: int
) -> Sorted:
    """Let each name be won by one task, and of each dedup key one stay; `keys` are those of the tasks that have one.

    Of a key with very many, only so many are removed, and none runs yet: the next claim goes on with the one that won
    among them. None runs either while another transaction is at the one that would.
    """
    rivals = _Rivals(connection, tasks, keys)
    beaten: dict[int, int | None] = {}
    while True:
        kept = survivors(rivals.groups, beaten)
        rivals.leave_busy(connection, kept)
        lost = _lost(connection, rivals.wishes_of(tasks, kept, beaten), now_us)
        beaten |= lost
        if lost.keys().isdisjoint(kept.values()):
            break
    groups = rivals.groups.items()
    dropped = [i for key, group in groups for i, _ in group if i != kept.get(key) and i not in beaten]
    _drop(connection, dropped, min(now_us + tombstone_us, LATEST_US))
    left = [task for task in tasks if task.id not in beaten and rivals.may_run(task.id, kept)]
    return Sorted(left, beaten, bool(dropped))


class _Rivals:
    """The tasks of a claim, and all that wait with one of their dedup keys."""

    def __init__(self, connection: Connection, tasks: Sequence[LeasedTask], keys: Mapping[int, Key]) -> None:
        self.groups: dict[Key, list[Waiting]] = {}
        self._wishes = {task.id: Wish(task.queue_name, task.name, task.id) for task in tasks if task.name is not None}
        self._locked = {task.id for task in tasks}
        self._key_of: dict[int, Key] = {}
        self._too_many: set[Key] = set()
        statement = _WAITING.add_columns(*names.named(connection.dialect.name)).limit(_MOST_AT_ONCE)
        for key in dict.fromkeys(keys.values()):
            found = connection.execute(statement, {"queue": key[0], "dedup": key[1]}).all()
            self.groups[key] = [Waiting(row.id, "replace" if row.replaces else "skip") for row in found]
            self._key_of |= dict.fromkeys((row.id for row in found), key)
            wishes = (names.wish_of(row.id, row.queue_name, row.name) for row in found)
            self._wishes |= {wish.task_id: wish for wish in wishes if wish is not None}
            if len(found) == _MOST_AT_ONCE:
                self._too_many.add(key)
                self._key_of |= {task_id: each for task_id, each in keys.items() if each == key}

    def leave_busy(self, connection: Connection, kept: dict[Key, int]) -> None:
        """Take out the keys whose kept task is not this claim's, and cannot be locked to win its name."""
        others = {i: key for key, i in kept.items() if i in self._wishes and i not in self._locked}
        for some in chunks(others):
            self._locked.update(connection.execute(_LOCK, {"ids": list(some)}).scalars())
        for task_id, key in others.items():
            if task_id not in self._locked:
                del self.groups[key], kept[key]

    def wishes_of(self, tasks: Sequence[LeasedTask], kept: Mapping[Key, int], beaten: Container[int]) -> list[Wish]:
        """Give the names of those that are to run, in the order of the claim."""
        runners = [kept.get(self._key_of[task.id]) if task.id in self._key_of else task.id for task in tasks]
        named = [i for i in dict.fromkeys(runners) if i is not None and i in self._wishes and i not in beaten]
        return [self._wishes[i] for i in named]

    def may_run(self, task_id: int, kept: Mapping[Key, int]) -> bool:
        """Say whether a task is the one of its key, or has none."""
        key = self._key_of.get(task_id)
        return key is None or (kept.get(key) == task_id and key not in self._too_many)


def _lost(connection: Connection, wishes: Sequence[Wish], now_us: int) -> dict[int, int | None]:
    """Let tasks win their names; give the holders of the names of those that could not."""
    holders = names.win(connection, wishes, now_us) if wishes else {}
    return {wish.task_id: holders.get(wish.key) for wish in wishes if holders.get(wish.key) != wish.task_id}


def _drop(connection: Connection, task_ids: Iterable[int], expires_us: int) -> None:
    """Remove waiting tasks; the names they had won stay taken until then."""
    for some in chunks(task_ids):
        gone = connection.execute(_DROP, {"ids": list(some)}).scalars().all()
        attempts.forget(connection, gone)
        names.let_go(connection, gone, expires_us)
