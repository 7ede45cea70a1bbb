"""How long the server takes for each page of the dashboard, with many tasks: `python -m benchmarks.dashboard_pages`.

Arguments: the database's URL, an empty database, and how many tasks. It prints the median and
the worst of some calls, and the least processor time of one, which a busy machine does not prolong (PostgreSQL's own is
not in it).
"""

import statistics
import sys
import time
from urllib.parse import urlencode

import anyio
from sqlalchemy import create_engine, text

from hookware import Hookware, TaskRouter
from hookware.core.filter import parse
from tests.asgi import request

CALLS = 7
PAGES: list[tuple[str, dict[str, str]]] = [
    ("/", {}), ("/queues", {}), ("/queue", {"name": "default"}), ("/tasks", {}), ("/tasks", {"filter": "state:dead"}),
    ("/tasks", {"filter": "state:dead error:nothing"}), ("/tasks", {"filter": "state:due queue:mail"}),
    ("/task/{id}", {}), ("/errors", {}), ("/cron", {}), ("/processes", {}), ("/audit", {}),
    ("/many", {"action": "retry", "filter": "state:dead"}),
]  # fmt: skip
COLUMNS = (
    "id, queue_name, method, url, headers, body, deadline_us, created_us, eta_us, state, fence, attempt_count, "
    "crash_count, lane, ended_us, dead_reason, last_error, last_status"
)
ROW = (
    "{n}, {queue}, 'POST', '/worker', '[]', {body}, 30000000, {now} - {n}, {now} - {n}, {state}, 1, 1, 0, {queue}, "
    "CASE WHEN {state} = 2 THEN {now} - {n} END, CASE WHEN {state} = 2 THEN 'retries' END, "
    "CASE WHEN {state} = 2 THEN 'TimeoutError: no answer after ' || ({n} % 40) || ' s' END, 500"
)


def insert(dialect: str, count: int, now_us: int) -> str:
    """Give the statement that makes the tasks: half of them dead, in five queues."""
    given = {
        "n": "n", "now": now_us, "state": "(n % 2) * 2", "body": "''" if dialect == "postgresql" else "x''",
        "queue": "CASE n % 5 WHEN 0 THEN 'default' WHEN 1 THEN 'mail' ELSE 'queue-' || (n % 5) END",
    }  # fmt: skip
    if dialect == "postgresql":
        return f"INSERT INTO hookware_task ({COLUMNS}) SELECT {ROW.format(**given)} FROM generate_series(1, {count}) n"
    numbers = f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count})"
    return f"INSERT INTO hookware_task ({COLUMNS}) {numbers} SELECT {ROW.format(**given)} FROM s"


async def measure(url: str, count: int) -> None:
    """Fill the database, and ask for every page some times."""
    engine = create_engine(url)
    hookware = Hookware(engine=engine, router=TaskRouter(), dispatch=False, dashboard="x" * 32)
    await hookware.insight.count(parse("state:dead"))  # makes the tables
    with engine.begin() as connection:
        connection.execute(text(insert(engine.dialect.name, count, time.time_ns() // 1000)))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    for path, query in PAGES:
        here = "/_hookware" + path.format(id=count // 2)
        times, cpu_times = [], []
        for _ in range(CALLS):
            began, cpu_began = time.perf_counter(), time.process_time()
            answer = await request(
                hookware, here, method="GET", query=urlencode(query).encode(),
                headers=[(b"authorization", b"Bearer " + b"x" * 32)],
            )  # fmt: skip
            times.append((time.perf_counter() - began) * 1000)
            cpu_times.append((time.process_time() - cpu_began) * 1000)
            assert answer.status == 200, answer.body
        said = f"{path} {query.get('filter', '')}"
        print(
            f"{said:40} median {statistics.median(times):6.1f} ms  worst {max(times):6.1f} ms  "
            f"processor {min(cpu_times):6.1f} ms  {len(answer.body)} bytes"
        )


if __name__ == "__main__":
    anyio.run(measure, sys.argv[1], int(sys.argv[2]))
