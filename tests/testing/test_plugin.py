"""The pytest plugin, in small pytest runs of its own."""

import os
import re
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import fastapi.testclient
import httpx2
import pytest
import sqlalchemy.dialects.sqlite

import hookware.testing

KEPT = (fastapi.testclient, httpx2, sqlalchemy.dialects.sqlite, hookware.testing)
"""Imported here, because a run in this process forgets again what it has imported, and the next would have others."""

ROOT = Path(__file__).parent.parent.parent

SHOP = """
    import os
    from fastapi import FastAPI
    from sqlalchemy import create_engine, text
    from hookware import Hookware, TaskRouter, taskqueue

    engine = create_engine(f"sqlite:///shop-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}.db")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS packed (item TEXT)"))
    router, api = TaskRouter(), FastAPI()

    @api.post("/orders")
    def order(item: str):
        taskqueue.add(url="/pack", params={"item": item}, countdown=60)

    @router.task_handler("/pack")
    def pack(item: str):
        if item == "nothing":
            raise ValueError("there is nothing to pack")
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO packed VALUES (:item)"), {"item": item})

    def packed():
        with engine.connect() as connection:
            return connection.execute(text("SELECT item FROM packed")).scalars().all()

    app = Hookware(api, engine=engine, router=router)
"""
CONFTEST = """
    import pytest
    from sqlalchemy import text
    from starlette.testclient import TestClient
    from shop import app, engine

    @pytest.fixture
    def client():
        with TestClient(app) as client:
            yield client
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM packed"))
"""
FAILING = """
    import pytest
    from shop import packed

    def test_added(client, tasks):
        client.post("/orders?item=tea")
        tasks.assert_added(url="/pack", params={"item": "coffee"})

    def test_run(client, tasks):
        client.post("/orders?item=nothing")
        tasks.clock.advance(60)
        tasks.run()

    def test_twice(client, tasks):
        client.post("/orders?item=tea")
        tasks.clock.advance(60)
        tasks.deliver_twice("/pack")
        assert packed() == ["tea"]

    def test_crash(client, tasks):
        client.post("/orders?item=tea")
        tasks.clock.advance(60)
        tasks.crash("/pack")
        tasks.run()
        assert packed() == ["tea"]

    def test_fail(client, tasks):
        client.post("/orders?item=tea")
        tasks.clock.advance(60)
        tasks.fail("/pack", times=1)
        assert tasks.run().retried == 0

    @pytest.mark.hookware(mode="inline")
    def test_inline_with_a_countdown(client, tasks):
        client.post("/orders?item=tea")
        assert packed() == ["tea"]

    @pytest.mark.hookware("eager")
    def test_mode(tasks):
        pass
"""


@pytest.fixture
def shop(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(shop=SHOP)
    pytester.makeconftest(CONFTEST)
    pytester.syspathinsert()
    return pytester


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run pytest in this process, with the plugin, whether or not it is installed."""
    installed = any(each.value == "pytest_hookware" for each in entry_points(group="pytest11"))
    plugin = () if installed else ("-p", "pytest_hookware")
    if "asyncio" not in options:
        options = ("-p", "no:asyncio", *options)
    return pytester.runpytest_inprocess(*plugin, "-p", "no:cacheprovider", "-p", "no:xdist", *options)


def test_the_fixture_gives_the_tasks_whatever_comes_first(shop: pytest.Pytester) -> None:
    shop.makepyfile(
        """
        from shop import packed

        def test_client_first(client, tasks):
            client.post("/orders?item=tea")
            tasks.clock.advance(60)
            assert packed() == []
            assert tasks.run().ok == 1
            assert packed() == ["tea"]

        def test_tasks_first(tasks, client):
            client.post("/orders?item=tea")
            tasks.assert_added(url="/pack", params={"item": "tea"}, countdown=60, count=1)

        def test_nothing_is_left_of_the_one_before(client, tasks):
            assert len(tasks) == 0
            tasks.assert_none_added()
        """
    )
    run(shop).assert_outcomes(passed=3)


def test_what_should_fail_fails_and_says_why(shop: pytest.Pytester) -> None:
    shop.makepyfile(FAILING)
    result = run(shop)
    result.assert_outcomes(failed=6, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*params?'item'?: expected 'coffee', got 'tea'",
            "*ValueError: there is nothing to pack",
            "*HandlerFailedError: attempt 1 of task *",
            "*'tea', 'tea'*",
        ]
    )
    result.stdout.no_fnmatch_line("*hookware/testing/tasks.py:*")  # its own frames are not the reader's affair
    result.stdout.fnmatch_lines(["*hookware's mode is one of manual, inline, live, got 'eager'*"])


def test_the_mode_comes_from_the_marker_the_option_or_the_ini_file(shop: pytest.Pytester) -> None:
    shop.makeini("[pytest]\nhookware_mode = inline\n")
    shop.makepyfile(
        """
        import pytest

        def test_ini_or_option(tasks):
            print("mode is", tasks.mode)

        @pytest.mark.hookware("live")
        def test_marker(tasks):
            assert tasks.mode == "live"
        """
    )
    run(shop, "-s").stdout.fnmatch_lines(["*mode is inline*"])
    result = run(shop, "-s", "--hookware-mode=manual", "--strict-markers")
    result.stdout.fnmatch_lines(["*mode is manual*"])
    result.assert_outcomes(passed=2)


def test_an_app_that_a_session_shares_is_held_in_the_tests_that_ask_for_it_only(shop: pytest.Pytester) -> None:
    shop.makeconftest(CONFTEST.replace("@pytest.fixture", '@pytest.fixture(scope="session")'))
    shop.makepyfile(
        """
        import time
        from hookware import taskqueue
        from shop import packed

        def test_first(client, tasks):
            client.post("/orders?item=tea")
            assert len(tasks) == 1

        def test_by_itself(client):
            taskqueue.add(url="/pack", params={"item": "milk"})
            until = time.monotonic() + 10
            while packed() != ["milk"]:
                assert time.monotonic() < until
                time.sleep(0.01)

        def test_held_again(client, tasks):
            taskqueue.add(url="/pack", params={"item": "tea"})
            assert len(tasks) == 1
            assert tasks.run().ok == 1
            assert packed() == ["milk", "tea"]
        """
    )
    run(shop).assert_outcomes(passed=3)


def test_a_fixture_that_breaks_at_its_end_keeps_no_test_from_its_tasks(shop: pytest.Pytester) -> None:
    shop.makepyfile(
        """
        import pytest
        from hookware.loops import Loops

        @pytest.fixture
        def broken():
            yield
            raise RuntimeError("at the end")

        def test_first(client, tasks, broken):
            client.post("/orders?item=tea")

        def test_second(client, tasks):
            assert len(tasks) == 0
            client.post("/orders?item=milk")
            tasks.clock.advance(60)
            assert tasks.run().ok == 1

        def test_none_is_left():
            assert Loops.director is None
        """
    )
    run(shop).assert_outcomes(passed=3, errors=1)


def test_a_fixture_of_the_projects_own_with_that_name_is_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from hookware.loops import Loops

        @pytest.fixture
        def tasks():
            return ["mine"]

        def test_mine(tasks):
            assert tasks == ["mine"]
            assert Loops.director is None
        """
    )
    run(pytester).assert_outcomes(passed=1)


def test_a_fixture_of_that_name_may_take_it_from_the_plugin(shop: pytest.Pytester) -> None:
    shop.makepyfile(
        """
        import pytest

        @pytest.fixture
        def tasks(tasks):
            tasks.fail("/pack")
            return tasks

        def test_own(client, tasks):
            client.post("/orders?item=tea")
            tasks.clock.advance(60)
            assert tasks.run().retried == 1
        """
    )
    run(shop).assert_outcomes(passed=1)


def test_without_any_app_nothing_breaks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_nothing(tasks):
            assert len(tasks) == 0
            assert len(tasks.run()) == 0
            tasks.assert_none_added()
        """
    )
    run(pytester).assert_outcomes(passed=1)


ASYNC_TEST = """
    import httpx2, pytest
    {imports}
    from shop import app, packed

    @{fixture}
    async def http():
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client

    @pytest.mark.{mark}
    async def test_async(http, tasks):
        await http.post("/orders?item=tea")
        await tasks.assert_added_async(url="/pack")
        tasks.clock.advance(60)
        assert (await tasks.run_async()).ok == 1
        assert packed() == ["tea"]

    @pytest.mark.{mark}
    async def test_async_fails(http, tasks):
        await http.post("/orders?item=nothing")
        tasks.clock.advance(60)
        await tasks.run_async()
"""


@pytest.mark.parametrize(
    ("imports", "fixture", "mark", "options"),
    [
        (
            "import pytest_asyncio",
            "pytest_asyncio.fixture",
            "asyncio",
            ("-p", "no:anyio", "-o", "asyncio_default_fixture_loop_scope=function", "-p", "asyncio"),
        ),
        ("", "pytest.fixture", "anyio", ()),
    ],
    ids=["pytest-asyncio", "anyio"],
)
def test_it_works_with(shop: pytest.Pytester, imports: str, fixture: str, mark: str, options: tuple[str, ...]) -> None:
    shop.makeconftest('import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return "asyncio"\n')
    shop.makepyfile(ASYNC_TEST.format(imports=imports, fixture=fixture, mark=mark))
    result = run(shop, *options)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*HandlerFailedError: attempt 1 of task *"])


# In processes of their own.


def subprocess_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, *options: str) -> pytest.RunResult:
    """Run pytest with the plugin found by its entry point, as pyproject.toml declares it."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    info = pytester.mkdir("installed") / "hookware_plugin-1.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: hookware-plugin\nVersion: 1\n")
    lines = [f"{name} = {value}" for name, value in declared.items()]
    info.joinpath("entry_points.txt").write_text("\n".join(["[pytest11]", *lines]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(info.parent), str(pytester.path)]))
    return pytester.run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options)


@pytest.mark.slow
def test_it_loads_itself_and_imports_nothing_for_who_does_not_use_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_elsewhere():
            assert "pytest_hookware" in sys.modules
            assert [name for name in sys.modules if name.partition(".")[0] in ("hookware", "sqlalchemy")] == []
        """
    )
    result = subprocess_run(pytester, monkeypatch, "-p", "no:xdist")
    result.assert_outcomes(passed=1)


@pytest.mark.slow
def test_it_works_in_several_processes(shop: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.makepyfile(
        """
        import pytest
        from shop import packed

        @pytest.mark.parametrize("number", range(6))
        def test_each(client, tasks, number):
            client.post(f"/orders?item={number}")
            tasks.clock.advance(60)
            assert tasks.run().ok == 1
            assert packed() == [str(number)]
        """
    )
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # of the process that runs this very test
    result = subprocess_run(shop, monkeypatch, "-n", "2")
    result.assert_outcomes(passed=6)
    assert len({path.name for path in shop.path.glob("shop-gw*.db")}) == 2


def test_the_wheel_has_the_plugin() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert "pytest_hookware.py" in built["wheel"]["only-include"]
    assert re.search(r"pytest_hookware", " ".join(built["sdist"]["include"]))
