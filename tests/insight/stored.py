"""Tasks in whatever state, put into the database as rows: what a test of reading needs."""

from itertools import count
from typing import Any

from sqlalchemy import insert

from hookware import Hookware
from hookware.core.lifecycle import State
from hookware.core.queue import Lane
from hookware.store.sql.tables import process_table, task_table
from tests.stage import Stage

SECOND_US = 1_000_000
_ids = count(1)


class World:
    """A Hookware that stores only, with rows of a test's own; `now_us` is the database's time when it was made."""

    def __init__(self, stage: Stage, **options: Any) -> None:
        self.stage = stage
        self.hookware: Hookware = stage.make(dispatch=False, **options)
        self.insight = self.hookware.insight
        self.outbox = self.hookware._outbox
        self.outbox.running = False  # no task of another test is to find it
        self.outbox.prepare_blocking()
        self.now_us: int = self.outbox.runner.run_blocking(self.outbox.own_clock)

    def put(self, state: State = State.PENDING, *, count: int = 1, ago: float = 0, **values: Any) -> list[int]:
        """Put tasks there: due, or ended, `ago` seconds ago, a microsecond after one another."""
        ids = [next(_ids) for _ in range(count)]
        rows = [
            self._row(task_id, state, self.now_us - int(ago * SECOND_US) + n, values) for n, task_id in enumerate(ids)
        ]
        with self.stage.sync_engine.begin() as connection:
            connection.execute(insert(task_table), rows)
        return ids

    def process(self, **values: Any) -> None:
        """Put a living process there that dispatches."""
        row = {
            "owner": f"process-{next(_ids)}", "host": "web-1", "pid": 12, "version": "1", "started_us": self.now_us,
            "seen_us": self.now_us, "concurrency": 10, "running_count": 0, "dispatches": 1, "clock_offset_us": 0,
        }  # fmt: skip
        with self.stage.sync_engine.begin() as connection:
            connection.execute(insert(process_table), {**row, **values})

    def _row(self, task_id: int, state: State, at_us: int, values: dict[str, Any]) -> dict[str, Any]:
        ended = state in (State.DEAD, State.COMPLETED)
        leased = state is State.LEASED
        row = {
            "id": task_id, "queue_name": "default", "name": None, "method": "POST", "url": "/worker", "headers": "[]",
            "body": b"", "deadline_us": 30 * SECOND_US, "created_us": at_us, "eta_us": at_us, "state": int(state),
            "fence": 1, "attempt_count": int(state in (State.LEASED, State.DEAD, State.COMPLETED)), "crash_count": 0,
            "first_attempt_us": at_us if ended or leased else None, "ended_us": at_us if ended else None,
            "owner": "somebody" if leased else None, "lease_until_us": at_us + 3600 * SECOND_US if leased else None,
            "dead_reason": "retries" if state is State.DEAD else None, "last_error": None, "last_status": None,
            "tag": None, "dedup_key": None, "fair_key": None, "limit_key": None, "on_conflict": None, **values,
        }  # fmt: skip
        keyed = any(row[key] is not None for key in ("dedup_key", "fair_key", "limit_key"))
        if keyed:
            row |= {key: row[key] or "" for key in ("fair_key", "limit_key")}
        return {"lane": str(Lane(str(row["queue_name"]), 0, keyed)), **row}
