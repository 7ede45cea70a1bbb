"""Run every app on every server, and print the table of docs/explanation/servers.md: `python -m tests.matrix.all`."""

import platform
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import product
from pathlib import Path

from tests.matrix.apps import APPS, MISCONFIGURED
from tests.matrix.cell import Verdict, judge
from tests.matrix.servers import PACKAGES, SERVERS

FRAMEWORKS = ("starlette", "fastapi", "sqlalchemy", "aiosqlite", "anyio")
ROWS = [*APPS, MISCONFIGURED]


def _judged(cell: tuple[str, str]) -> Verdict:
    app, server = cell
    with tempfile.TemporaryDirectory() as folder:
        verdict = judge(app, SERVERS[server], Path(folder))
    if not verdict.is_good:
        print(f"{app} on {server}: {verdict.text}\n{verdict.output}\n", file=sys.stderr)
    return verdict


def main() -> int:
    """Print the table; 1 if something in it should not be so."""
    cells = list(product(ROWS, SERVERS))
    with ThreadPoolExecutor(2) as threads:
        verdicts = dict(zip(cells, threads.map(_judged, cells), strict=True))
    versions = ", ".join(f"{name} {version(name)}" for name in (*PACKAGES, *FRAMEWORKS))
    print(f"Python {platform.python_version()}, {versions}.\n")
    print("|  |" + "".join(f" {server} |" for server in SERVERS))
    print("|---|" + "---|" * len(SERVERS))
    for app in ROWS:
        print(f"| {app} |" + "".join(f" {verdicts[app, server].text} |" for server in SERVERS))
    return 0 if all(verdict.is_good for verdict in verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
