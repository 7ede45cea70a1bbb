"""A filled installation with a dashboard, and visitors of every role."""

from collections.abc import Iterator

import pytest

from tests.dashboard.site import Filled, Visitor, fill, options
from tests.databases import Database
from tests.insight.stored import World
from tests.stage import Stage


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # what differs between event loops lies below the dashboard


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    stage = Stage(database)
    yield World(stage, **options())
    stage.close_blocking()


@pytest.fixture
def filled(world: World) -> Filled:
    return fill(world)


@pytest.fixture
def reader(world: World) -> Visitor:
    return Visitor(world.hookware, "read")


@pytest.fixture
def operator(world: World) -> Visitor:
    return Visitor(world.hookware, "operate")


@pytest.fixture
def admin(world: World) -> Visitor:
    return Visitor(world.hookware, "admin")
