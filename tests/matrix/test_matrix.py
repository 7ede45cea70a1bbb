"""Every app on one server, one app on every server, and each phase on one; `python -m tests.matrix.all` runs it all."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle, product
from typing import Any

import pytest

from tests.matrix.all import APP_ROWS, PAGE, part_of, stop_in
from tests.matrix.apps import APPS, MISCONFIGURED
from tests.matrix.cell import Verdict, judge
from tests.matrix.phases import PHASES
from tests.matrix.servers import SERVERS

Cell = tuple[str, str]

FASTAPI, STARLETTE = 'FastAPI, `def`, `scope="function"`', "Starlette, `add_middleware`"
# hypercorn's two workers are in the whole matrix only: what it does to them differs from run to run.
RELIABLE = [name for name, server in SERVERS.items() if not server.may_kill]
COMMON = ["uvicorn, httptools", "granian", "gunicorn, uvicorn-worker", "hypercorn"]
CELLS: list[Cell] = list(
    dict.fromkeys(
        [
            *product(APPS, ["uvicorn, httptools"]),
            *product([STARLETTE], RELIABLE),
            *product([FASTAPI], ["granian", "gunicorn, uvicorn-worker", "hypercorn"]),
            *product([MISCONFIGURED], ["hypercorn", "granian", "gunicorn, uvicorn-worker"]),
        ]
    )
)
STOPS: list[Cell] = list(zip(PHASES, cycle(COMMON), strict=False))
_AHEAD = 3
_MOST_SECONDS = 170  # on a machine that does much else: a cell takes 2 to 10 s of an idle one


class Verdicts:
    """Runs the cells that were asked for, some ahead of their tests: most of a cell is waiting."""

    def __init__(self, threads: ThreadPoolExecutor, asked: list[Cell], folders: pytest.TempPathFactory) -> None:
        self._threads, self._asked, self._folders = threads, asked, folders
        self._begun: dict[Cell, Future[Verdict]] = {}

    def of(self, cell: Cell) -> Verdict:
        """Give the verdict of a cell, and begin the next ones."""
        place = self._asked.index(cell)
        for row, server in self._asked[place : place + 1 + _AHEAD]:
            if (row, server) not in self._begun:
                judge_cell, folder = stop_in if row in PHASES else judge, self._folders.mktemp("cell")
                self._begun[row, server] = self._threads.submit(judge_cell, row, SERVERS[server], folder)
        return self._begun[cell].result(timeout=_MOST_SECONDS)


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verdicts]:
    items: list[Any] = [item for item in request.session.items if "verdicts" in getattr(item, "fixturenames", ())]
    threads = ThreadPoolExecutor(1 + _AHEAD)
    yield Verdicts(threads, [item.callspec.params["cell"] for item in items], tmp_path_factory)
    threads.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.timeout(_MOST_SECONDS + 10)
@pytest.mark.parametrize("cell", CELLS, ids=" on ".join)
def test_an_app_on_a_server(verdicts: Verdicts, cell: Cell) -> None:
    verdict = verdicts.of(cell)
    assert verdict.is_good, f"{verdict.text}\n{verdict.output}"


@pytest.mark.slow
@pytest.mark.timeout(_MOST_SECONDS + 10)
@pytest.mark.parametrize("cell", STOPS, ids=" on ".join)
def test_a_server_that_is_told_to_stop(verdicts: Verdicts, cell: Cell) -> None:
    verdict = verdicts.of(cell)
    assert verdict.is_good, f"{verdict.text}\n{verdict.output}"


@pytest.mark.parametrize(("name", "rows"), [("apps", APP_ROWS), ("stops", PHASES)])
def test_the_page_has_the_tables_of_this_matrix(name: str, rows: tuple[str, ...]) -> None:
    table = part_of(PAGE.read_text(), name)[0].strip().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert cells[0][1:] == list(SERVERS)
    assert [row[0] for row in cells[2:]] == list(rows)
