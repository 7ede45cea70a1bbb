"""What the tests of deferred functions share."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.databases import Database
from tests.deferring import functions
from tests.stage import Stage


@pytest.fixture
def calls() -> Iterator[list[Any]]:
    """Give the list of what the functions were called with."""
    functions.CALLS.clear()
    yield functions.CALLS
    functions.CALLS.clear()


@pytest.fixture
def plain_stage(database: Database) -> Iterator[Stage]:
    """Give a stage to a test without an event loop."""
    stage = Stage(database)
    yield stage
    stage.close_blocking()
