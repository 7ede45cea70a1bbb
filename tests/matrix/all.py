"""Run every app on every server, and stop every server in every phase: `python -m tests.matrix.all`.

Both tables are printed and, if nothing in them is amiss, written into docs/explanation/servers.md.
"""

import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import product
from pathlib import Path

from tests.matrix.apps import APPS, MISCONFIGURED
from tests.matrix.cell import Verdict, judge
from tests.matrix.phases import PHASES, judge_stop
from tests.matrix.run import ROOT
from tests.matrix.servers import PACKAGES, SERVERS, ServerKind

PAGE = ROOT / "docs" / "explanation" / "servers.md"
FRAMEWORKS = ("starlette", "fastapi", "litestar", "quart", "django", "falcon", "blacksheep")
LIBRARIES = ("sqlalchemy", "aiosqlite", "anyio")
APP_ROWS = (*APPS, MISCONFIGURED)

Judge = Callable[[str, ServerKind, Path], Verdict]


def part_of(page: str, name: str) -> re.Match[str]:
    """Find the part of the page that is written here."""
    part = re.search(rf"(?<=<!-- tests\.matrix\.all: {name} -->\n).*?(?=<!-- end -->)", page, re.DOTALL)
    assert part is not None, f"{PAGE} has no part {name}"
    return part


def stop_in(phase: str, server: ServerKind, folder: Path) -> Verdict:
    return judge_stop(PHASES[phase], server, folder)


def _judged(judge_cell: Judge, row: str, server: str) -> Verdict:
    with tempfile.TemporaryDirectory() as folder:
        verdict = judge_cell(row, SERVERS[server], Path(folder))
    print(f"{row} on {server}: {verdict.text}", file=sys.stderr)
    if not verdict.is_good:
        print(f"{verdict.output}\n", file=sys.stderr)
    return verdict


def _table(rows: Iterable[str], judge_cell: Judge) -> tuple[str, bool]:
    """Run all cells of a table, two at a time; give it as Markdown, and whether all is well."""
    cells = list(product(rows, SERVERS))
    with ThreadPoolExecutor(2) as threads:
        verdicts = dict(zip(cells, threads.map(lambda cell: _judged(judge_cell, *cell), cells), strict=True))
    head = ["|  |" + "".join(f" {server} |" for server in SERVERS), "|---|" + "---|" * len(SERVERS)]
    body = [f"| {row} |" + "".join(f" {verdicts[row, server].text} |" for server in SERVERS) for row in rows]
    return "\n".join([*head, *body]), all(verdict.is_good for verdict in verdicts.values())


def _versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in (*PACKAGES, *FRAMEWORKS, *LIBRARIES))
    return f"Python {platform.python_version()}, {packages}."


def main() -> int:
    """Run, print and write; 1 if something in the tables should not be so."""
    apps, apps_are_good = _table(APP_ROWS, judge)
    stops, stops_are_good = _table(tuple(PHASES), stop_in)
    page = PAGE.read_text()
    for name, text in (("versions", _versions()), ("apps", apps), ("stops", stops)):
        print(f"{text}\n")
        part = part_of(page, name)
        page = f"{page[: part.start()]}\n{text}\n\n{page[part.end() :]}"
    if not (apps_are_good and stops_are_good):
        return 1
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
