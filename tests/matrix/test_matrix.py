"""Every app on one server, and one app on every server; `python -m tests.matrix.all` runs all of them on all."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest

from tests.matrix.apps import APPS, MISCONFIGURED
from tests.matrix.cell import Verdict, judge
from tests.matrix.servers import SERVERS

Cell = tuple[str, str]

PAGE = Path(__file__).parent.parent.parent / "docs" / "explanation" / "servers.md"
FASTAPI, STARLETTE = 'FastAPI, `def`, `scope="function"`', "Starlette, `add_middleware`"
# hypercorn's two workers are in the whole matrix only: what it does to them differs from run to run.
RELIABLE = [name for name, server in SERVERS.items() if not server.may_kill]
LESS_USUAL = ["uvicorn, uvloop", "hypercorn, trio", "granian `--workers 2`", "gunicorn, asgi"]
CELLS: list[Cell] = list(
    dict.fromkeys(
        [
            *product(APPS, ["uvicorn, httptools"]),
            *product([STARLETTE], RELIABLE),
            *product([FASTAPI], [name for name in RELIABLE if name not in LESS_USUAL]),
            *product([MISCONFIGURED], ["hypercorn", "granian", "gunicorn, uvicorn-worker"]),
        ]
    )
)


@pytest.fixture(scope="module")
def verdicts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Cell, Future[Verdict]]]:
    """Run the cells that were asked for, a few at a time: most of one is waiting."""
    asked = [item.callspec.params["cell"] for item in request.session.items if "verdicts" in item.fixturenames]  # type: ignore[attr-defined]  # of parametrised tests
    threads = ThreadPoolExecutor(4)
    yield {
        (app, server): threads.submit(judge, app, SERVERS[server], tmp_path_factory.mktemp("cell"))
        for app, server in asked
    }
    threads.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=" on ".join)
def test_an_app_on_a_server(verdicts: dict[Cell, Future[Verdict]], cell: Cell) -> None:
    verdict = verdicts[cell].result(timeout=55)
    assert verdict.is_good, f"{verdict.text}\n{verdict.output}"


def test_the_page_has_the_table_of_this_matrix() -> None:
    table = PAGE.read_text().partition("\n|")[2].partition("\n\n")[0]
    lines = table.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0][1:] == list(SERVERS)
    assert [row[0] for row in rows[2:]] == [*APPS, MISCONFIGURED]
