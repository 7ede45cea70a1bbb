"""The fixture of the crash tests."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import PostgresServer
from verification.chaos.nursery import Nursery
from verification.crash.database import PostgresDatabase
from verification.crash.site import Site, site_in


def on_both(name: str = "", *values: object) -> pytest.MarkDecorator:
    """Run a test on SQLite, with each value of a parameter, and on PostgreSQL with the first one.

    `python -m verification crash` is there for the rest.
    """
    sites: list[Any]
    if not name:
        sites = ["sqlite", pytest.param("psycopg", marks=pytest.mark.postgres)]
        return pytest.mark.parametrize("site", sites, indirect=True)
    sites = [("sqlite", value) for value in values]
    sites += [pytest.param("psycopg", values[0], marks=pytest.mark.postgres)]
    return pytest.mark.parametrize(("site", name), sites, indirect=["site"])


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where servers are forked, for importing what they need takes most of the time that one needs to start."""
    with closing(Nursery()) as nursery:
        yield nursery


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path, nursery: Nursery) -> Iterator[Site]:
    """A database, a history and the processes on them; whatever a test does, no process may meet a locked database."""
    driver = getattr(request, "param", "sqlite")
    database = None
    if driver != "sqlite":
        server: PostgresServer = request.getfixturevalue("postgres")
        database = PostgresDatabase(server, driver)
    with site_in(tmp_path, database, nursery.spawn) as site:
        yield site
    assert "is locked" not in site.logs
    assert all(process.status is not None for process in site.processes)
