"""The fixture of these tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import Site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Give a folder with a database, and the commands on it."""
    monkeypatch.delenv("HOOKWARE_DISPATCH", raising=False)
    site = Site(tmp_path)
    yield site
    site.close()
