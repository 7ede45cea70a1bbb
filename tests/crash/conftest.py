"""The fixture of the crash tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from verification.crash.site import Site, site_in


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A database, a history and the processes on them; whatever a test does, no process may meet a locked database."""
    with site_in(tmp_path) as site:
        yield site
    assert "is locked" not in site.logs
    assert all(process.status is not None for process in site.processes)
