"""What is done to many tasks: some in each transaction, in one order: none is looked at twice, and none is lost."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, assert_never

from sqlalchemy import Connection, delete, select

from hookware.core.filter import Filter, FilterError, parse
from hookware.core.lifecycle import State
from hookware.core.retention import Retention
from hookware.store.base import LATEST_US
from hookware.store.sql import attempts, names, statements
from hookware.store.sql.asking import keep_to_indexes
from hookware.store.sql.choosing import Place, conditions_of, plan
from hookware.store.sql.queue_ops import wait_briefly
from hookware.store.sql.read import keyed
from hookware.store.sql.tables import task_table
from hookware.store.sql.times import Clock
from hookware.store.views import Action, BulkProgress

_AT_ONCE: Final = 200
"""How many tasks one transaction changes: while it lasts, nobody else may write on SQLite."""

_VISITS: Final = 2000
_tasks = task_table.c


class Rules(NamedTuple):
    """What the store knows: the database's clock, how long names stay taken, and how long tasks are kept."""

    clock: Clock
    tombstone_us: int
    retention: Retention


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulk:
    """An action on the tasks of a filter, and how far it has come."""

    action: Action
    chosen: Filter
    started_us: int | None = None
    after: Place | None = None
    done_count: int = 0
    left_count: int = 0
    is_complete: bool = False

    @property
    def progress(self) -> BulkProgress:
        """How far it has come, for people."""
        return BulkProgress(
            action=self.action,
            filter=str(self.chosen),
            started_us=self.started_us or 0,
            done_count=self.done_count,
            left_count=self.left_count,
            is_complete=self.is_complete,
            token=self._token(),
        )

    def _token(self) -> str:
        after = None if self.after is None else [*self.after]
        said = [
            self.action,
            str(self.chosen),
            self.started_us,
            after,
            self.done_count,
            self.left_count,
            self.is_complete,
        ]
        return base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")


def begin(action: Action, chosen: Filter, token: str | None = None) -> Bulk:
    """Give an action at its beginning, or where a token says that it has come to.

    Raises:
        FilterError: the filter does not fit the action, or the token is another one's.
    """
    fresh = Bulk(action=action, chosen=_fitting(action, chosen))
    if token is None:
        return fresh
    try:
        said = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        named, text, started_us, after, done_count, left_count, is_complete = said
        place = None if after is None else Place(int(after[0]), int(after[1]))
        resumed = replace(
            fresh, started_us=None if started_us is None else int(started_us), after=place,
            done_count=int(done_count), left_count=int(left_count), is_complete=bool(is_complete),
        )  # fmt: skip
    except (ValueError, TypeError, IndexError, OverflowError):
        raise FilterError(
            "the token to resume from cannot be read: take the one that the last progress gave", 0
        ) from None
    if (named, parse(str(text))) != (action, fresh.chosen):
        raise FilterError(f"the token to resume from is of another call: {named} {text}", 0)
    return resumed


def _fitting(action: Action, chosen: Filter) -> Filter:
    """Give the filter with the states that the action is for, where it names none."""
    if chosen == Filter():
        raise FilterError("an empty filter would mean every task: write at least one term, such as state:dead", 0)
    possible: dict[str, frozenset[str]] = {
        "retry": frozenset(("dead",)),
        "delete": frozenset(("due", "scheduled", "waiting", "retrying", "dead", "completed", "pull")),
        "cancel": frozenset(("due", "scheduled", "waiting", "retrying", "running", "pull")),
    }
    if action not in possible:
        raise FilterError(f"there is no action {action!r}: use retry, delete or cancel", 0)
    if wrong := sorted({*chosen.states} - possible[action]):
        raise FilterError(
            f"{action} is not for tasks that are {', '.join(wrong)}: leave the state out, or change it", 0
        )
    if chosen.states:
        return chosen
    defaults: dict[str, Filter] = {
        "retry": replace(chosen, states=("dead",)),
        "delete": replace(chosen, states=("waiting", "dead", "completed", "pull")),
        "cancel": replace(chosen, states=("waiting", "running", "pull")),
    }
    return defaults[action]


def step(connection: Connection, bulk: Bulk, rules: Rules) -> tuple[Bulk, list[int]]:
    """Go on with some tasks; how far it has come then, and which running ones were called off.

    The first step fixes the time: what ends, or is added, later is left alone, and so is what this has revived.
    """
    if bulk.is_complete:
        return bulk, []
    wait_briefly(connection)
    now_us = rules.clock(connection)
    keep_to_indexes(connection)
    started_us = now_us if bulk.started_us is None else bulk.started_us
    found = plan(connection, bulk.chosen, started_us, oldest_first=True).page(connection, bulk.after, _AT_ONCE, _VISITS)
    ids = _locked(connection, bulk, [place.task_id for place in found.places], started_us)
    done, cut = _do(connection, bulk.action, ids, now_us, rules)
    moved = replace(
        bulk, started_us=started_us, after=found.until, is_complete=found.until is None,
        done_count=bulk.done_count + done, left_count=bulk.left_count + len(found.places) - done,
    )  # fmt: skip
    return moved, cut


def _locked(connection: Connection, bulk: Bulk, ids: Sequence[int], started_us: int) -> list[int]:
    """Lock those that are still meant, and were so when it began."""
    if not ids:
        return []
    was_there = (_tasks.created_us <= started_us, _tasks.ended_us.is_(None) | (_tasks.ended_us <= started_us))
    meant = select(_tasks.id).where(_tasks.id.in_(ids), *conditions_of(bulk.chosen, started_us), *was_there)
    # Whoever holds a running task may be long at it: its handler's own transaction.
    skips = bulk.action == "cancel"
    return list(connection.execute(meant.with_for_update(skip_locked=skips)).scalars())


def _do(connection: Connection, action: Action, ids: Sequence[int], now_us: int, rules: Rules) -> tuple[int, list[int]]:
    match action:
        case "retry":
            return statements.run_all_again(connection, ids, now_us), []
        case "delete":
            return _delete(connection, ids, now_us, rules), []
        case "cancel":
            cancelled = [
                task_id for task_id in ids
                if statements.cancel(connection, task_id, now_us, rules.tombstone_us, rules.retention)
            ]  # fmt: skip
            return len(cancelled), cancelled
        case _:
            assert_never(action)


def _delete(connection: Connection, ids: Sequence[int], now_us: int, rules: Rules) -> int:
    removed = delete(task_table).where(_tasks.id.in_(ids), ~keyed(State.LEASED))
    rows = connection.execute(removed.returning(_tasks.id, *names.named(connection.dialect.name), _tasks.state)).all()
    attempts.forget(connection, [row.id for row in rows])
    held = [names.wish_of(row.id, row.queue_name, row.name) for row in rows if row.state != State.COMPLETED]
    wishes = [wish for wish in held if wish is not None]
    names.tombstone(connection, wishes, min(now_us + rules.tombstone_us, LATEST_US), now_us)
    return len(rows)
