"""A world of a test's own."""

from collections.abc import Iterator

import pytest

from tests.databases import Database
from tests.insight.stored import World
from tests.stage import Stage


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    """Give a Hookware that stores only, on an empty database."""
    stage = Stage(database)
    yield World(stage)
    stage.close_blocking()
