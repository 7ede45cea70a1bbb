"""An app without a server: which apps it can be, what ends it, and with which status."""

import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import anyio
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from hookware import TaskHandler
from hookware.headless import Headless
from hookware.signals import Signals
from tests.databases import EVERY_ASYNC_DRIVER, EVERY_DATABASE_ON_A_LOOP
from tests.stage import Stage

TERM, INT = signal.SIGTERM, signal.SIGINT
Site = tuple[Stage, TaskHandler[..., Any], list[str]]


class Asked(Signals):
    """Signals that a test sends without a process."""

    def send(self, number: signal.Signals) -> None:
        self._take(number, None)


async def without_lifespan(scope: Scope, _receive: Receive, _send: Send) -> None:
    assert scope["type"] == "http", scope["type"]


async def mute(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Return at once."""


def note(stage: Stage) -> tuple[TaskHandler[..., Any], list[str]]:
    ran: list[str] = []

    @stage.task_handler("/note")
    async def handler(text: str, then: str = "") -> None:
        ran.append(text)
        if then:
            await handler.add_async(then)

    return handler, ran


async def store(stage: Stage, handler: TaskHandler[..., Any], *arguments: Any) -> None:
    """Add a task in a process that runs none."""
    async with stage.running(dispatch=False):
        await handler.add_async(*arguments)


def headless_of(app: ASGIApp, signals: Signals, *, drain: bool) -> Headless:
    def leave(_status: int) -> NoReturn:
        raise AssertionError("it would leave handlers behind")

    return Headless(app, signals, drain=drain, leave=leave)


async def drain(app: ASGIApp) -> tuple[str | None, int]:
    """Run an app to its end; give why it could not start, and the status."""
    headless = headless_of(app, Asked(is_awaited=True), drain=True)
    with anyio.fail_after(20):
        refusal = await headless.run()
    return refusal, headless.status


APPS: dict[str, Callable[[Stage], ASGIApp]] = {
    "Starlette, added": lambda stage: added(stage, Starlette()),
    "FastAPI, added": lambda stage: added(stage, FastAPI()),
    "Starlette, wrapped": lambda stage: stage.make(Starlette()),
    "without lifespan, wrapped": lambda stage: stage.make(without_lifespan),
    "mute, wrapped": lambda stage: stage.make(mute),
    "Hookware alone": lambda stage: stage.make(),
    "dispatch off in one of two": lambda stage: stage.make(stage.make(Starlette(), dispatch=False)),
}


def added(stage: Stage, app: Starlette) -> Starlette:
    stage.add_to(app)
    return app


# Which apps.


@pytest.mark.parametrize("build", APPS.values(), ids=APPS.keys())
async def test_every_kind_of_app_runs_what_is_due_and_ends(
    stage: Stage, build: Callable[[Stage], ASGIApp], caplog: pytest.LogCaptureFixture
) -> None:
    handler, ran = note(stage)
    await store(stage, handler, "one", "two")
    with caplog.at_level("INFO", logger="hookware"):
        assert await drain(build(stage)) == (None, 0)
    assert ran == ["one", "two"]
    assert stage.task_count() == 0
    assert caplog.messages[-1] == "hookware: ended, 2 attempts (2 completed)"


@EVERY_ASYNC_DRIVER
async def test_with_an_async_engine_as_well(async_stage: Stage) -> None:
    handler, ran = note(async_stage)
    await store(async_stage, handler, "one", "two")
    assert await drain(added(async_stage, Starlette())) == (None, 0)
    assert ran == ["one", "two"]


@pytest.mark.parametrize(
    ("app", "says"),
    [
        (Starlette(), r"no Hookware in it: .*`app = Hookware\(app, engine=engine\).*`app\.add_middleware\(Hookware"),
        (without_lifespan, "does not answer the lifespan protocol.* AssertionError: lifespan"),
        (mute, "does not answer the lifespan protocol.* it returned at once"),
    ],
    ids=["Starlette", "without lifespan", "mute"],
)
async def test_an_app_without_hookware_is_refused(app: ASGIApp, says: str) -> None:
    refusal, status = await drain(app)
    assert re.search(says, refusal or ""), refusal
    assert status == 1


async def test_an_app_in_which_nobody_dispatches_is_refused(stage: Stage) -> None:
    refusal, status = await drain(stage.make(dispatch=False))
    assert (refusal or "").startswith("the app has started, and no Hookware in it")
    assert status == 1


async def test_a_start_that_fails_is_refused_with_the_apps_own_words(stage: Stage) -> None:
    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no coffee")
        yield

    refusal, status = await drain(stage.make(Starlette(lifespan=lifespan)))
    assert (refusal or "").endswith("RuntimeError: no coffee\n")
    assert status == 1
    stage.sync_engine.dispose()
    for path in stage.path.parent.glob("*.db*"):
        path.write_bytes(b"no database " * 1000)
    refusal, status = await drain(stage.make())
    assert "cannot be used: file is not a database" in (refusal or "")
    assert status == 1


# What ends it.


async def ended_by(stage: Stage, *signals: signal.Signals, drain: bool) -> tuple[int, list[str]]:
    """Send signals while a handler runs that takes long; give the status, and how the handler ended."""
    begun, ended = anyio.Event(), list[str]()
    asked = Asked(is_awaited=drain)

    @stage.task_handler("/hold")
    async def hold() -> None:
        begun.set()
        try:
            with anyio.move_on_after(0.5 if len(signals) == 1 else 3600):
                await anyio.sleep_forever()
            ended.append("by itself")
        except anyio.get_cancelled_exc_class():
            ended.append("cut short")
            raise

    async def send() -> None:
        await begun.wait()
        for number in signals:
            asked.send(number)
            await anyio.wait_all_tasks_blocked()

    await store(stage, hold)
    headless = headless_of(stage.make(drain_seconds=3600), asked, drain=drain)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as others:
            others.start_soon(send)
            assert await headless.run() is None
    return headless.status, ended


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(TERM, 143), (INT, 130)])
async def test_the_first_signal_lets_running_tasks_end(stage: Stage, number: signal.Signals, status: int) -> None:
    assert await ended_by(stage, number, drain=False) == (0, ["by itself"])
    assert stage.task_count() == 0


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(TERM, 143), (INT, 130)])
async def test_who_waits_for_the_end_is_told_that_it_came_too_early(
    stage: Stage, number: signal.Signals, status: int
) -> None:
    assert await ended_by(stage, number, drain=True) == (status, ["by itself"])


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize(("number", "status"), [(TERM, 143), (INT, 130)])
@pytest.mark.parametrize("drain", [True, False])
async def test_the_second_signal_cuts_short_and_gives_back(
    stage: Stage, number: signal.Signals, status: int, drain: bool
) -> None:
    assert await ended_by(stage, TERM, number, drain=drain) == (status, ["cut short"])
    assert stage.rows("SELECT state, owner, attempt_count FROM hookware_task") == [(0, None, 0)]


def test_a_signal_before_anybody_waits_ends_the_process() -> None:
    for is_awaited, status in ((False, 0), (True, 143)):
        with pytest.raises(SystemExit) as ended:
            Asked(is_awaited=is_awaited).send(TERM)
        assert ended.value.code == status


async def test_it_goes_on_until_a_signal_comes(stage: Stage) -> None:
    handler, ran = note(stage)
    asked = Asked(is_awaited=False)
    headless = headless_of(stage.make(poll_seconds=0.05), asked, drain=False)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as others:
            others.start_soon(headless.run)
            while stage.hookware.processing is None:
                await anyio.wait_all_tasks_blocked()
            for number in (1, 2):
                await handler.add_async(str(number))
                await stage.settled(number)
            asked.send(TERM)
    assert (ran, headless.status) == (["1", "2"], 0)


@pytest.mark.parametrize("error", [None, RuntimeError("it rained")])
async def test_a_lifespan_that_ends_by_itself_is_a_failure(
    stage: Stage, error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        if error is not None:
            raise error

    headless = headless_of(stage.make(app), Asked(is_awaited=False), drain=False)
    with anyio.fail_after(20):
        assert await headless.run() is None
    assert headless.status == 1
    what = "it returned" if error is None else "RuntimeError: it rained"
    assert f"the app's lifespan has ended by itself: {what}" in caplog.messages


@pytest.mark.parametrize("told", [True, False])
async def test_a_shutdown_that_fails_is_a_failure(stage: Stage, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if told:
            await send({"type": "lifespan.shutdown.failed", "message": "the door is stuck"})
        raise RuntimeError("it rained")

    refusal, status = await drain(stage.make(app))
    assert (refusal, status) == (None, 1)
    said = "the door is stuck" if told else "the app's shutdown failed: RuntimeError: it rained"
    assert said in caplog.messages


async def test_what_is_due_is_asked_again_after_an_error(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    hookware = stage.make()
    asked: list[str] = []
    ask = hookware._outbox.store.next_due

    async def next_due(exclude: frozenset[str] = frozenset()) -> int | None:
        asked.append("")
        if len(asked) == 1:
            raise ConnectionError("away")
        return await ask(exclude)

    monkeypatch.setattr(hookware._outbox.store, "next_due", next_due)
    assert await drain(hookware) == (None, 0)
    assert len(asked) >= 2


@pytest.mark.slow
async def test_an_app_that_waits_for_ever_after_its_shutdown_is_not_waited_for(stage: Stage) -> None:
    heard: list[str] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            heard.append(message["type"])
            await send({"type": f"{message['type']}.complete"})

    assert await drain(stage.make(app)) == (None, 0)
    assert heard == ["lifespan.startup", "lifespan.shutdown"]
