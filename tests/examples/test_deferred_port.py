"""Code for App Engine's `deferred` runs here with its import changed, and nothing else."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.stage import AT_ONCE, Stage

THEIRS, OURS = "from google.appengine.ext import deferred", "from hookware import deferred"

FUNCTIONS = """
import logging
from google.appengine.ext import deferred

ROWS = ["a", "b", "c", "d", "e"]
BATCH_SIZE = 2
done = []


def do_something_expensive(a, b, c=None):
    done.append((a, b, c))


def later():
    deferred.defer(do_something_expensive, "Hello, world!", 42, c=True)


def update_schema(cursor=0, num_updated=0):
    batch = ROWS[cursor:cursor + BATCH_SIZE]
    done.extend(batch)
    if batch:
        num_updated += len(batch)
        deferred.defer(update_schema, cursor=cursor + BATCH_SIZE, num_updated=num_updated, _queue="updates")
    else:
        done.append(num_updated)
        logging.debug("update_schema complete with %d updates!", num_updated)


def give_up(key):
    done.append(key)
    raise deferred.PermanentTaskFailure("there is no %s" % key)


def not_yet(key):
    done.append(key)
    if done.count(key) < 3:
        raise deferred.SingularTaskFailure()
"""

MAPPER = """
from google.appengine.ext import deferred

ROWS = list(range(7))
done = []


class Mapper(object):
    FILTERS = []

    def map(self, row):
        raise NotImplementedError()

    def finish(self):
        pass

    def run(self, batch_size=100):
        self._continue(0, batch_size)

    def _continue(self, start, batch_size):
        for row in ROWS[start:start + batch_size]:
            self.map(row)
        if start + batch_size >= len(ROWS):
            self.finish()
            return
        deferred.defer(self._continue, start + batch_size, batch_size)


class Doubler(Mapper):
    def __init__(self, factor):
        self.factor = factor

    def map(self, row):
        done.append(row * self.factor)

    def finish(self):
        done.append("finished")
"""


def ported(name: str, code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import code with its one line changed."""
    assert code.count(THEIRS) == 1
    monkeypatch.syspath_prepend(folder)
    (folder / f"{name}.py").write_text(code.replace(THEIRS, OURS))
    sys.modules.pop(name, None)
    return importlib.import_module(name)


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return ported("ported_functions", FUNCTIONS, tmp_path, monkeypatch)


async def test_functions_run_once_their_package_is_allowed(stage: Stage, functions: Any) -> None:
    async with stage.running(deferred_packages=["ported_functions"]):
        functions.later()
        await stage.settled()
    assert functions.done == [("Hello, world!", 42, True)]


async def test_a_function_goes_on_where_it_left_off(stage: Stage, functions: Any) -> None:
    async with stage.running(deferred_packages=["ported_functions"]):
        functions.update_schema()
        await stage.settled(3)
    assert functions.done == [*"abcde", 5]
    assert stage.task_count() == 0


async def test_failures_mean_what_they_meant(stage: Stage, functions: Any) -> None:
    async with stage.running(deferred_packages=["ported_functions"]) as hookware:
        functions.deferred.defer(functions.give_up, "key")
        await stage.settled(1)
        functions.deferred.defer(functions.not_yet, "page", _retry_options=AT_ONCE)
        await stage.settled(4)
        [dead] = await hookware.inspector.list_tasks()
    assert functions.done == ["key", "page", "page", "page"]
    assert dead.last_error == "PermanentTaskFailure: there is no key"


async def test_a_mapper_defers_its_own_methods(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapper: Any = ported("ported_mapper", MAPPER, tmp_path, monkeypatch)
    async with stage.running(deferred_pickle_key=b"k" * 32):
        mapper.Doubler(2).run(3)
        await stage.settled(2)
    assert mapper.done == [0, 2, 4, 6, 8, 10, 12, "finished"]
    assert stage.task_count() == 0
