"""A database file with the user's own table, and a second look at it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from tests.transactions.stored import Stored, business_table


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/joining.db")
    with engine.begin() as connection:
        business_table.create(connection)
    yield engine
    engine.dispose()


@pytest.fixture
def stored(tmp_path: Path, engine: Engine) -> Iterator[Stored]:
    stored = Stored(tmp_path / "joining.db")
    yield stored
    stored.close()
