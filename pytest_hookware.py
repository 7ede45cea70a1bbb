"""hookware's pytest plugin: the fixture `tasks`. It loads itself; only a test that uses it imports hookware."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from hookware.testing import Tasks

_MODES = ("manual", "inline", "live")
_OPEN = pytest.StashKey["ExitStack"]()
_TASKS = pytest.StashKey["Tasks"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer to choose the mode for all tests."""
    group = parser.getgroup("hookware")
    group.addoption("--hookware-mode", choices=_MODES, help="how tasks run in tests that use the fixture `tasks`")
    parser.addini("hookware_mode", "how tasks run in tests that use the fixture `tasks`", default="manual")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "hookware(mode): how tasks run in this test: manual, inline or live")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Take the dispatchers' place before any fixture starts an app."""
    if "tasks" in getattr(item, "fixturenames", ()) and _is_ours(item):
        from hookware.testing import rehearse

        opened = ExitStack()
        item.stash[_TASKS] = opened.enter_context(rehearse(_mode(item)))
        item.stash[_OPEN] = opened


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Give it back after the last fixture, whatever that raises: the next test would find the place taken."""
    try:
        return (yield)
    finally:
        opened = item.stash.get(_OPEN, None)
        if opened is not None:
            del item.stash[_OPEN]
            opened.close()


@pytest.fixture
def tasks(request: pytest.FixtureRequest) -> Tasks:
    """Give the tasks of the app under test; see hookware.testing.Tasks."""
    given: Tasks = request.node.stash[_TASKS]
    return given


def _is_ours(item: pytest.Item) -> bool:
    """Say whether this plugin's `tasks` is asked for: by the test, or by a fixture of that name in front of it."""
    info: Any = getattr(item, "_fixtureinfo", None)
    for each in reversed(info.name2fixturedefs.get("tasks", ()) if info is not None else ()):
        if getattr(each.func, "__module__", "") == __name__:
            return True
        if "tasks" not in each.argnames:
            break
    return False


def _mode(item: pytest.Item) -> Any:
    marker = item.get_closest_marker("hookware")
    chosen = marker.kwargs.get("mode", *marker.args[:1]) if marker is not None else None
    mode = chosen or item.config.getoption("hookware_mode") or item.config.getini("hookware_mode")
    if mode not in _MODES:
        raise pytest.UsageError(f"hookware's mode is one of {', '.join(_MODES)}, got {mode!r}")
    return mode
