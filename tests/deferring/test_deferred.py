"""`deferred.defer`: a function is called later, once, with its arguments, as a task of the transaction."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlmodel import Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from hookware import deferred, taskqueue
from hookware.core.lifecycle import Complete, Retry
from hookware.errors import ConfigurationError, InvalidTaskError, TaskTooLargeError
from hookware.handlers import default_router
from tests.databases import EVERY_ASYNC_DRIVER, EVERY_DATABASE_ON_A_LOOP
from tests.deferring import functions
from tests.deferring.functions import Item
from tests.serving import StartupFailedError
from tests.stage import AT_ONCE, Stage

URL = "/_ah/queue/deferred"
NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
PACKAGE = ["tests.deferring"]


@EVERY_DATABASE_ON_A_LOOP
async def test_a_function_of_an_allowed_package_is_called_with_its_arguments(stage: Stage, calls: list[Any]) -> None:
    async with stage.running(deferred_packages=PACKAGE):
        task = await deferred.defer_async(functions.note, "x", more=3)
        [event] = await stage.settled()
    assert calls == [("x", 3)]
    assert (task.id, task.url, task.method) == (event.task.id, URL, "POST")
    assert stage.task_count() == 0


async def test_a_registered_function_needs_no_package(stage: Stage, calls: list[Any]) -> None:
    assert stage.router.deferred_function(functions.note) is functions.note
    async with stage.running():
        await deferred.defer_async(functions.note, "x")
        await stage.settled()
    assert calls == [("x", 0)]


def test_the_decorator_registers_in_the_default_router() -> None:
    assert deferred.function(functions.quiet) is functions.quiet
    handler = default_router.find_function("tests.deferring.functions:quiet")
    assert handler is not None
    assert handler.function is functions.quiet


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_def_runs_in_a_thread_and_an_async_def_in_the_loop(stage: Stage, calls: list[Any]) -> None:
    async with stage.running(deferred_packages=PACKAGE):
        await deferred.defer_async(functions.note_thread)
        await stage.settled(1)
        await deferred.defer_async(functions.note_async, what="é")
        await stage.settled(2)
    assert calls == [False, ("é", True)]


async def test_arguments_arrive_as_their_annotations_say(stage: Stage, calls: list[Any]) -> None:
    async with stage.running(deferred_packages=PACKAGE):
        await deferred.defer_async(
            functions.typed, NOON, Item(name="x"), items=[Item(name="y", price=2.5)], raw=b"\0\xff", limit=float("inf")
        )
        await stage.settled()
    assert calls == [(NOON, Item(name="x"), [Item(name="y", price=2.5)], b"\0\xff", float("inf"))]


async def test_the_options_are_those_of_a_task(stage: Stage, calls: list[Any]) -> None:
    async with stage.running(deferred_packages=PACKAGE, dispatch=False):
        task = await deferred.defer_async(
            functions.who,
            "x",
            _countdown=60,
            _name="one",
            _target="elsewhere",
            _retry_options=AT_ONCE,
            _headers={"X-Color": "red", "Content-Type": "text/plain"},
            _queue="mail",
        )
        assert task.retry_options == AT_ONCE
        assert task.headers == {"x-color": "red", "content-type": "application/json"}
        [stored] = await stage.hookware.inspector.list_tasks()
        assert (stored.name, stored.queue_name) == ("one", "mail")
    async with stage.running(deferred_packages=PACKAGE):
        stage.execute("UPDATE hookware_task SET eta_us = 0")
        await stage.settled()
    assert calls == [(1, "mail", "red", "x")]


async def test_the_call_is_stored_as_json(stage: Stage) -> None:
    async with stage.running(deferred_packages=PACKAGE, dispatch=False):
        await deferred.defer_async(functions.note, "x", _eta=datetime.now(UTC))
    [body] = stage.rows("SELECT body FROM hookware_task")
    assert json.loads(body) == {"function": "tests.deferring.functions:note", "arguments": {"what": "x"}}


CALLS_OF_EVERY_KIND: list[tuple[Callable[..., None], tuple[Any, ...], dict[str, Any]]] = [
    (functions.rest, ("x",), {}),
    (functions.rest, ("x", 1, 2), {"last": "y"}),
    (functions.rest, (), {"first": "x"}),
    (functions.others, ("x",), {"a": 1.5, "b": 2.0}),
    (functions.others, (), {"a": 1.5}),
    (functions.others, (), {}),
    (functions.others, ("x",), {"more": 1.5}),
    (functions.by_place, (1,), {}),
    (functions.by_place, (1, 5), {"third": 6}),
    (functions.by_place, (1, 5, 6), {}),
    (functions.all_kinds, (1, 2), {}),
    (functions.all_kinds, (1, 2, 3, 4), {"third": 5, "fourth": 6}),
    (functions.all_kinds, (1,), {"second": 2, "first": 7, "more": 8, "others": 9}),
    (functions.as_before, (), {}),
    (functions.as_before, ("x", 1, None, [1.5]), {"key": {"deep": True}, "args": 1, "kwargs": 2}),
    (functions.with_options, (), {"at": NOON}),
]


@pytest.mark.parametrize(("function", "args", "kwargs"), CALLS_OF_EVERY_KIND)
async def test_a_function_is_called_as_it_was_deferred_whatever_its_parameters(
    stage: Stage, calls: list[Any], function: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    function(*args, **kwargs)
    [expected] = calls
    calls.clear()
    async with stage.running(deferred_packages=PACKAGE):
        await deferred.defer_async(function, *args, **kwargs)
        await stage.settled()
    assert calls == [expected]


async def test_what_is_injected_finds_its_place_among_them(stage: Stage, calls: list[Any]) -> None:
    async with stage.running(deferred_packages=PACKAGE):
        await deferred.defer_async(functions.hidden, 7, 1, 2, x=3)
        await stage.settled()
    assert calls == [(True, 7, 1, (1, 2), {"x": 3})]


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "says"),
    [
        (functions.rest, ("x", "many"), {}, r"more\.0: "),
        (functions.rest, ("x",), {"first": "y"}, "'first' is given twice"),
        (functions.rest, ("x",), {"more": 1}, "'more' is not a parameter"),
        (functions.others, (), {"a": "many"}, r"more\.a: "),
        (functions.others, ("x", "y"), {}, "takes 1 arguments"),
        (functions.by_place, (), {"first": 1}, "'first' is not a parameter"),
        (functions.by_place, (), {}, "first: Field required"),
        (functions.hidden, (1,), {"session": 2}, "'session' is not a parameter"),
        (functions.as_before, (NOON,), {}, "'args', of type list, would arrive as another value"),
    ],
)
async def test_a_call_that_does_not_fit_is_refused_whatever_its_parameters(
    stage: Stage, function: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any], says: str
) -> None:
    async with stage.running(deferred_packages=PACKAGE):
        with pytest.raises(InvalidTaskError, match=says):
            await deferred.defer_async(function, *args, **kwargs)


# Transactions.


@EVERY_DATABASE_ON_A_LOOP
async def test_effect_completion_and_what_follows_happen_once(stage: Stage, calls: list[Any]) -> None:
    async with stage.running(deferred_packages=PACKAGE):
        await deferred.defer_async(functions.count, key="x", fail_first=True, _retry_options=AT_ONCE)
        await stage.settled(3)
    assert stage.tally() == {"x": 1}
    assert calls == [("after attempt 2", 0)]
    assert stage.task_count() == 0


@EVERY_ASYNC_DRIVER
async def test_an_async_function_gets_an_async_session(async_stage: Stage) -> None:
    async with async_stage.running(deferred_packages=PACKAGE):
        await deferred.defer_async(functions.count_async, "x")
        await async_stage.settled()
    assert async_stage.tally() == {"x": 1}
    assert async_stage.task_count() == 0


@pytest.mark.parametrize("commits", [True, False])
async def test_a_task_joins_the_session_that_is_given(stage: Stage, commits: bool) -> None:
    async with stage.running(deferred_packages=PACKAGE, dispatch=False):
        with Session(stage.sync_engine) as session:
            deferred.defer(functions.note, "x", _session=session)
            if commits:
                session.commit()
            else:
                session.rollback()
        assert stage.task_count() == int(commits)


def test_a_task_of_a_request_that_fails_never_was(plain_stage: Stage, calls: list[Any]) -> None:
    def view(request: Request) -> PlainTextResponse:
        deferred.defer(functions.note, request.query_params["what"])
        return PlainTextResponse("", int(request.query_params["status"]))

    hookware = plain_stage.make(Starlette(routes=[Route("/", view)]), deferred_packages=PACKAGE)
    with TestClient(hookware) as client:
        client.get("/?what=a&status=400")
        client.get("/?what=b&status=200")
        assert client.portal is not None
        client.portal.call(plain_stage.settled)
    assert calls == [("b", 0)]


# Outcomes.


async def test_permanent_failure_leaves_the_task_dead(stage: Stage) -> None:
    async with stage.running(deferred_packages=PACKAGE):
        await deferred.defer_async(functions.permanent)
        task = await stage.dead()
    assert (task.dead_reason, task.attempt_count) == ("permanent", 1)
    assert "the account is gone" in str(task.last_error)


async def test_singular_failure_is_tried_again_without_a_traceback(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage.running(deferred_packages=PACKAGE):
        with caplog.at_level(logging.DEBUG, "hookware"):
            await deferred.defer_async(functions.singular, _retry_options=AT_ONCE)
            events = await stage.settled(2)
    [first, second] = [event.decision for event in events]
    assert isinstance(first, Retry)
    assert isinstance(second, Complete)
    assert first.status == 408
    assert "the page is not there yet" in first.error
    assert [record for record in caplog.records if record.exc_info] == []
    assert stage.tally() == {"kept": 1}


async def test_any_other_exception_is_a_failed_attempt(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async with stage.running(deferred_packages=PACKAGE):
        await deferred.defer_async(functions.broken, _retry_options=taskqueue.TaskRetryOptions(task_retry_limit=0))
        task = await stage.dead()
    assert (task.dead_reason, task.last_error) == ("retries", "RuntimeError: broken")
    assert any(record.exc_info for record in caplog.records)


async def test_a_payload_that_is_too_large_is_refused(stage: Stage) -> None:
    async with stage.running(deferred_packages=PACKAGE):
        with pytest.raises(TaskTooLargeError, match="1048576"):
            deferred.defer(functions.note, "x" * 1_048_576)
    assert stage.task_count() == 0


# The route.


@pytest.mark.parametrize(
    ("options", "status"), [({}, 404), ({"deferred_packages": PACKAGE}, 403), ({"deferred_pickle_key": b"k" * 32}, 403)]
)
def test_the_route_is_there_once_it_is_used_and_never_for_the_network(
    plain_stage: Stage, options: dict[str, Any], status: int
) -> None:
    with TestClient(plain_stage.make(**options)) as client:
        assert client.post(URL, headers={"X-AppEngine-TaskName": "1"}).status_code == status
        assert client.get(URL).status_code == status


def test_a_registered_function_opens_the_route(plain_stage: Stage) -> None:
    plain_stage.router.deferred_function(functions.note)
    with TestClient(plain_stage.make()) as client:
        assert client.post(URL).status_code == 403


async def test_only_a_post_runs_a_function(stage: Stage, calls: list[Any]) -> None:
    body = '{"function":"tests.deferring.functions:note","arguments":{"what":"x"}}'
    once = taskqueue.TaskRetryOptions(task_retry_limit=0)
    async with stage.running(deferred_packages=PACKAGE):
        await taskqueue.add_async(body, url=URL, method="PUT", retry_options=once)
        task = await stage.dead()
    assert (task.last_status, calls) == (405, [])


def test_a_path_of_the_apps_own_is_closed_to_the_network(plain_stage: Stage) -> None:
    app = Starlette(routes=[Mount("/later", app=deferred.application)])
    with TestClient(plain_stage.make(app, deferred_packages=PACKAGE)) as client:
        assert client.post("/later/").status_code == 403
    with TestClient(app) as client:  # without any Hookware
        assert client.post("/later/").status_code == 403


async def test_a_path_of_the_apps_own_runs_functions_too(stage: Stage, calls: list[Any]) -> None:
    app = Starlette(routes=[Mount("/later", app=deferred.application)])
    async with stage.running(app, deferred_packages=PACKAGE):
        await deferred.defer_async(functions.note, "x", _url="/later/mail")
        await stage.settled()
    assert calls == [("x", 0)]


# At start-up, and without one.


async def test_a_registered_function_with_the_wrong_kind_of_session_is_refused_at_startup(stage: Stage) -> None:
    stage.router.deferred_function(functions.count_async)
    with pytest.raises(StartupFailedError, match="count_async takes an AsyncSession"):
        async with stage.running():
            pass


async def test_a_function_with_the_wrong_kind_of_session_is_refused_when_deferred(stage: Stage) -> None:
    async with stage.running(deferred_packages=PACKAGE):
        with pytest.raises(ConfigurationError, match="count_async takes an AsyncSession"):
            deferred.defer(functions.count_async, "x")


async def test_arguments_that_do_not_fit_are_refused_when_deferred(stage: Stage) -> None:
    async with stage.running(deferred_packages=PACKAGE):
        with pytest.raises(InvalidTaskError, match="note"):
            deferred.defer(functions.note, ["not text"])
        with pytest.raises(InvalidTaskError, match="'other' is not a parameter of note"):
            deferred.defer(functions.note, "x", other=1)
        with pytest.raises(ConfigurationError, match="deferred function no_type has a parameter"):
            deferred.defer(functions.no_type, "x")
    assert stage.task_count() == 0
