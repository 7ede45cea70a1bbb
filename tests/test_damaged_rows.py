"""Rows with anything in every column never stop the dispatcher or the reaper: they go dead, and the others run."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import make_url

from hookware.env import Env
from hookware.events import LoopFailed
from hookware.store.sql.tables import metadata, name_table, task_table
from tests.damaged import BadText, Row, damaged_rows, good_row, put
from tests.databases import Database
from tests.postgres import PostgresServer
from tests.running import eventually
from tests.stage import Stage

GOOD_COUNT = 5
LONG_AGO_US = 1_600_000_000_000_000

_FEW = settings(
    max_examples=settings.get_profile(settings.get_current_profile_name()).max_examples // 3,  # each starts a Hookware
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
_PRINT = {
    True: (
        "rowid",
        " || '|' || ".join(f"typeof({c.name}) || coalesce(hex(CAST({c.name} AS BLOB)), '')" for c in task_table.c),
    ),
    False: ("id", "hookware_task::text"),
}
_DUE = "(state = 0 AND eta_us <= {now}) OR (state = 1 AND lease_until_us <= {now})"


class CountingEnv(Env):
    """Counts how often claims are begun."""

    def __init__(self) -> None:
        super().__init__()
        self.claim_count = 0

    def fp(self, name: str) -> None:
        self.claim_count += name == "dispatch.claim.before"


@contextmanager
def sqlite_file() -> Iterator[Database]:
    with TemporaryDirectory() as directory:
        yield Database(url=make_url(f"sqlite:///{Path(directory) / 'test.db'}"))


async def run_beside(database: Database, damaged: Sequence[Row], all_die: bool = False) -> CountingEnv:
    """Run good tasks beside damaged ones until none of these is due and as it was; say how often was claimed."""
    alive = "SELECT count(*) FROM hookware_task WHERE state <> 2"
    stage, env, ran = Stage(database), CountingEnv(), set[str]()
    metadata.create_all(stage.sync_engine, tables=[task_table, name_table])

    @stage.task_handler("/good")
    def good(key: str) -> None:
        ran.add(key)

    put(stage._look, damaged)
    before = prints(stage)
    put(stage._look, [good_row(number, LONG_AGO_US + number) for number in range(GOOD_COUNT)])
    try:
        async with stage.running(env=env, poll_seconds=0.05) as hookware:

            def done() -> bool:
                touched = len(ran) >= GOOD_COUNT and not untouched(stage, before)
                return touched and (not all_die or stage.rows(alive) == [0])

            await anyio.to_thread.run_sync(partial(eventually, done, seconds=5))
            await hookware.inspector.list_tasks()
            assert [event for event in stage.recorder.events if isinstance(event, LoopFailed)] == []
        assert stage.rows("SELECT count(*) FROM hookware_task WHERE state = 2 AND dead_reason IS NULL") == [0]
    finally:
        await stage.close()
    return env


def prints(stage: Stage) -> dict[object, str]:
    key, value = _PRINT[stage.database.is_sqlite]
    return dict(stage.rows(f"SELECT {key}, {value} FROM hookware_task"))


def untouched(stage: Stage, before: dict[object, str]) -> list[object]:
    """Give the rows that are due and still as they were."""
    key, value = _PRINT[stage.database.is_sqlite]
    now = time.time_ns() // 1000
    due = stage.rows(f"SELECT {key}, {value} FROM hookware_task WHERE {_DUE.format(now=now)}")
    return [each for each, print_ in due if before.get(each) == print_]


HOPELESS: dict[str, Row] = {
    "the highest fence": {"fence": 2**63 - 1},
    "the most attempts": {"attempt_count": 2**31 - 1},
    "the fewest attempts": {"attempt_count": -(2**31)},
    "the most crashes": {"crash_count": 2**31 - 1},
    "fewer crashes than none": {"crash_count": -5},
    "no deadline": {"deadline_us": 0},
    "a deadline that was": {"deadline_us": -(2**63)},
    "a deadline without end": {"deadline_us": 2**63 - 1},
    "a wait that is no number": {"retry_options": '{"min_backoff_seconds": NaN}'},
    "a limit that is text": {"retry_options": '{"task_retry_limit": "x"}'},
    "options that are no JSON": {"retry_options": "{"},
    "a header that is two": {"headers": '[["a", "b\\nc: d"]]'},
    "a header beyond Latin-1": {"headers": '[["a", "\u2028"]]'},
    "a method that is none": {"method": "GE\nT"},
    "another host": {"url": "//other/"},
    "a queue that is two lines": {"queue_name": "a\nb"},
    "a name beyond Latin-1": {"name": "\u2028"},
}
ENDED: Row = {"state": 1, "owner": "gone", "lease_until_us": LONG_AGO_US, "attempt_count": 1}


def hopeless_rows() -> list[Row]:
    """Give each of them twice: waiting, and with a lease that has ended."""
    return [
        {**good_row(0, LONG_AGO_US), "url": "/damaged", **state, **change}
        for state in ({}, ENDED)
        for change in HOPELESS.values()
    ]


@pytest.mark.slow
def test_what_can_never_run_is_dead_in_sqlite() -> None:
    with sqlite_file() as database:
        anyio.run(run_beside, database, hopeless_rows(), True)


@pytest.mark.slow
@pytest.mark.postgres
def test_what_can_never_run_is_dead_in_postgresql(postgres: PostgresServer) -> None:
    anyio.run(run_beside, Database(url=postgres.new_schema()), hopeless_rows(), True)


@pytest.mark.slow
@_FEW
@given(damaged_rows(untyped=True, now_us=LONG_AGO_US))
def test_anything_in_a_row_of_sqlite(rows: list[Row]) -> None:
    with sqlite_file() as database:
        anyio.run(run_beside, database, rows)


@pytest.mark.slow
@pytest.mark.postgres
def test_anything_in_a_row_of_postgresql(postgres: PostgresServer) -> None:
    @_FEW
    @given(damaged_rows(untyped=False, now_us=LONG_AGO_US))
    def check(rows: list[Row]) -> None:
        anyio.run(run_beside, Database(url=postgres.new_schema()), rows)

    check()


@pytest.mark.slow
def test_what_cannot_be_named_is_buried_at_once_and_not_looked_at_again_and_again() -> None:
    bad = [{**good_row(0, LONG_AGO_US), "id": BadText(b"\xff" + bytes([n]))} for n in range(50)]
    bad += [{**good_row(0, LONG_AGO_US), "eta_us": BadText(b"\xff")} for _ in range(50)]
    with sqlite_file() as database:
        env = anyio.run(run_beside, database, bad)
    assert env.claim_count < 20
