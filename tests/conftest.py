"""What tests of several folders share."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.stage import Stage

settings.register_profile("dev", max_examples=40, deadline=None, stateful_step_count=30)
settings.register_profile("ci", max_examples=100, deadline=None, stateful_step_count=40, print_blob=True)
settings.register_profile("nightly", max_examples=2000, deadline=None, stateful_step_count=60, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Give a stage on a synchronous engine."""
    stage = Stage(tmp_path / "stage.db")
    yield stage
    await stage.close()


@pytest.fixture
async def async_stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Give a stage on an AsyncEngine; asyncio only, as SQLAlchemy's."""
    stage = Stage(tmp_path / "stage.db", is_async=True)
    yield stage
    await stage.close()
