"""Alive and ready: what a process says of itself to those who may end it, or send it nothing."""

import json
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp

from hookware import livez, readyz
from hookware.executed import Executed
from tests.asgi import request
from tests.samples import SkippingEnv
from tests.serving import serving
from tests.stage import Stage


def site() -> Starlette:
    app = Starlette()
    app.add_route("/livez", livez.endpoint)
    app.add_route("/readyz", readyz.endpoint)
    return app


async def asked(app: ASGIApp, path: str) -> tuple[int, dict[str, Any]]:
    answer = await request(app, path, method="GET")
    assert answer.headers["cache-control"] == "no-store"
    return answer.status, json.loads(answer.body)


WELL = (200, {"status": "ok", "reasons": [], "failing_loops": []})


@pytest.mark.parametrize("dispatch", [True, False])
async def test_a_process_that_serves_is_alive_and_ready(stage: Stage, dispatch: bool) -> None:
    async with stage.running(site(), dispatch=dispatch) as hookware:
        assert await asked(hookware, "/livez") == WELL
        assert await asked(hookware, "/readyz") == WELL


async def test_it_is_ready_from_the_start_of_its_lifespan_to_the_begin_of_its_end(stage: Stage) -> None:
    hookware, seen = stage.make(site(), drain_seconds=5), list[tuple[int, dict[str, Any]]]()
    started = anyio.Event()

    @stage.task_handler("/worker")
    async def worker() -> None:
        started.set()
        with anyio.fail_after(5):
            while not hookware.processing or not hookware.processing._stopped:
                await anyio.lowlevel.checkpoint()
        seen.append(await asked(hookware, "/readyz"))
        assert await asked(hookware, "/livez") == WELL

    status, body = await asked(hookware, "/readyz")
    assert (status, body["reasons"]) == (503, ["no lifespan has run in this process"])
    assert await asked(hookware, "/livez") == WELL
    async with serving(hookware):
        await worker.add_async()
        await started.wait()
    assert [(status, body["reasons"]) for status, body in seen] == [(503, ["hookware is stopping"])]
    status, body = await asked(hookware, "/readyz")
    assert (status, body["reasons"]) == (503, ["hookware has stopped"])


async def test_a_database_that_is_away_makes_it_unready_and_no_less_alive(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = SkippingEnv()
    async with stage.running(site(), env=env, dispatch=False) as hookware:
        assert await asked(hookware, "/readyz") == WELL
        runner = hookware._outbox.runner

        def away(*_arguments: Any, **_options: Any) -> Any:
            raise OSError("postgresql://user:secret@db.example.com is away")

        with monkeypatch.context() as patch:
            patch.setattr(runner, "run_blocking", away)
            assert await asked(hookware, "/readyz") == WELL, "the last answer is good for a second"
            env.skip(1)
            status, body = await asked(hookware, "/readyz")
            assert (status, body["reasons"]) == (503, ["the database does not answer (OSError)"])
            assert await asked(hookware, "/livez") == WELL
        env.skip(1)
        assert await asked(hookware, "/readyz") == WELL


async def test_a_loop_that_fails_is_told_of_and_is_no_reason(stage: Stage) -> None:
    async with stage.running(site()) as hookware:
        processing = hookware.processing
        assert processing is not None
        processing._dispatcher.health.failed("listener", OSError("secret"))
        for path in ("/livez", "/readyz"):
            assert await asked(hookware, path) == (200, {"status": "ok", "reasons": [], "failing_loops": ["listener"]})


async def test_a_loop_that_has_ended_by_itself_is_the_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def end(_self: Executed) -> None: ...

    monkeypatch.setattr(Executed, "run", end)
    async with stage.running(site()) as hookware:
        await anyio.wait_all_tasks_blocked()
        for path in ("/livez", "/readyz"):
            status, body = await asked(hookware, path)
            assert (status, body["reasons"]) == (503, ["the loop executed has ended, and nobody starts it again"])


@pytest.mark.usefixtures("alone")
async def test_outside_of_hookware_they_are_asgi_apps_and_functions_of_the_only_one(stage: Stage) -> None:
    assert await asked(livez, "/") == WELL
    status, body = await asked(readyz, "/")
    assert status == 503
    assert "no Hookware in this process" in body["reasons"][0]
    async with stage.running(site()):
        assert await asked(readyz, "/") == WELL
        assert (await readyz.report()).ok
    report = await readyz.report()
    assert (report.ok, len(report.reasons)) == (False, 1)
