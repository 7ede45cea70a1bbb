"""Several processes that do everything at once to one database: nothing is run twice at once, and nothing is lost."""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from tests.postgres import PostgresServer

ROOT = Path(__file__).parent.parent.parent
PROCESS_COUNT = 3
TASK_COUNT = 100
"""How many tasks each process adds."""

Fact = dict[str, Any]


def start(url: str, number: int, pace: int) -> subprocess.Popen[str]:
    arguments = [url, f"process-{number}", str(number), str(TASK_COUNT), str(pace)]
    command = [sys.executable, "-m", "tests.store.churn", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def facts_of_processes_at_once(url: str, pace: int = 1) -> list[Fact]:
    """Let the processes loose at the same moment; all that they printed."""
    processes = [start(url, number, pace) for number in range(PROCESS_COUNT)]
    for process in processes:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"kind": "ready"}
    facts: list[Fact] = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        output, errors = process.communicate(timeout=100)
        assert (process.returncode, errors) == (0, "")
        facts += map(json.loads, output.splitlines())
    return facts


def check(facts: Iterable[Fact]) -> Counter[str]:
    """Check the lives of all tasks; how often each kind of thing happened."""
    kinds: defaultdict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        kinds[fact["kind"]].append(fact)
    accepted = [fact for fact in kinds["settled"] if fact["accepted"]]
    claims = Counter((fact["id"], fact["fence"]) for fact in kinds["claimed"])
    settled = Counter((fact["id"], fact["fence"]) for fact in accepted)
    assert set(claims.values()) == {1}, "a task was claimed twice under one fence"
    assert claims == settled, "a claim has no end, two ends, or an end without a claim"
    fences: defaultdict[int, list[int]] = defaultdict(list)
    for task_id, fence in claims:
        fences[task_id].append(fence)
    for seen in fences.values():
        assert sorted(seen) == list(range(1, len(seen) + 1)), "a claim was not heard of"
    completed = {fact["id"]: fact["at"] for fact in accepted if fact["ends"]}
    deleted = {fact["id"]: fact["at"] for fact in kinds["deleted"]}
    ended = completed | deleted
    assert completed.keys() & deleted.keys() == set(), "a task was completed and deleted"
    named = {fact["id"]: fact["name"] for fact in kinds["new"] if fact["name"] is not None}
    lost = {fact["id"] for fact in kinds["new"]} - ended.keys()
    assert lost <= named.keys() - fences.keys(), "only a duplicate may be gone without an end: pruned"
    check_names(named, {fact["id"]: fact["at"] for fact in kinds["claimed"] if fact["fence"] == 1}, ended)
    return Counter({kind: len(some) for kind, some in kinds.items()})


def check_names(named: dict[int, str], began: dict[int, float], ended: dict[int, float]) -> None:
    """Check that no task began before the last one of its name had ended."""
    lives: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for task_id, name in named.items():
        if task_id in began:
            lives[name].append((began[task_id], ended[task_id]))
    for each in lives.values():
        each.sort()
        for (_began, end), (begin, _ended) in pairwise(each):
            assert begin > end, "two tasks of one name were under way at once"


def errors(facts: Iterable[Fact]) -> list[str]:
    return [fact["text"] for fact in facts if fact["kind"] == "error"]


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_on_sqlite(tmp_path: Path) -> None:
    counts = check(facts_of_processes_at_once(f"sqlite:///{tmp_path / 'app.db'}"))
    assert counts["claimed"] > PROCESS_COUNT * TASK_COUNT / 2


PLANS = [f"enable_{kind} = off" for kind in ("indexscan", "indexonlyscan", "hashjoin", "hashagg", "nestloop")]


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.postgres
@pytest.mark.parametrize(
    ("settings", "pace"),
    [([], 1), ([*PLANS, "default_transaction_isolation = serializable"], 100)],
    ids=["usual", "other plans, serializable by default, slow looks"],
)
def test_on_postgresql(postgres: PostgresServer, settings: list[str], pace: int) -> None:
    database = postgres.new_database()
    with postgres.connect(database) as connection:
        for setting in settings:
            connection.execute(f"ALTER DATABASE {database} SET {setting}".encode())
    facts = facts_of_processes_at_once(postgres.url(database).render_as_string(), pace)
    counts = check(facts)
    assert errors(facts) == [], "a conflict that the order of locks should have prevented"
    assert counts["claimed"] > PROCESS_COUNT * TASK_COUNT / 2
    engine = create_engine(postgres.url(database))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM hookware_task")).scalar_one() == 0
    engine.dispose()
