"""What a handler is given: parameters of the task, validated, and things that are injected."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any

import anyio
import pytest
from pydantic import BaseModel
from pydantic import Field as Limit
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from hookware import TaskContext, TaskRouter, taskqueue
from hookware.errors import ConfigurationError, InvalidTaskError
from hookware.events import AttemptSettled
from tests.stage import Stage, Tally

ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


class Color(Enum):
    RED = "red"


class Item(BaseModel):
    name: str
    price: Decimal = Decimal(1)


async def delivered(stage: Stage, **task: Any) -> AttemptSettled:
    """Add a task for /worker, and wait for its first attempt's end."""
    async with stage.running():
        await taskqueue.add_async(url="/worker", **task)
        return (await stage.settled())[0]


# Values.


@pytest.mark.parametrize(
    "task",
    [
        {"params": {"n": 5, "key": "é&=", "tags": ["a", "b"]}},
        {"params": {"n": 5, "key": "é&=", "tags": ["a", "b"]}, "method": "GET"},
        {"url": "/worker?n=5&key=%C3%A9%26%3D&tags=a&tags=b", "method": "PUT"},
        {
            "payload": '{"n": 5, "key": "é&=", "tags": ["a", "b"], "more": 1}',
            "headers": {"Content-Type": "application/json; charset=utf-8"},
        },
    ],
    ids=["form", "query", "PUT with a query", "JSON"],
)
async def test_params_come_from_form_query_or_json(stage: Stage, task: dict[str, Any]) -> None:
    given: list[object] = []

    @stage.task_handler("/worker")
    def worker(n: int, key: str, tags: list[str], left_out: float = 0.5) -> None:
        given.append((n, key, tags, left_out))

    async with stage.running():
        await taskqueue.add_async(**({"url": "/worker"} | task))
        await stage.settled()
    assert given == [(5, "é&=", ["a", "b"], 0.5)]
    assert stage.task_count() == 0


async def test_one_value_of_a_form_fills_a_list_also_an_optional_or_annotated_one(stage: Stage) -> None:
    given: list[object] = []

    @stage.task_handler("/worker")
    def worker(
        a: list[int], b: list[int] | None, c: Annotated[Sequence[int], Limit(min_length=1)], d: set[int] | None = None
    ) -> None:
        given.append((a, b, list(c), d))

    await delivered(stage, params={"a": 1, "b": [2], "c": [3, 4]})
    assert given == [([1], [2], [3, 4], None)]


async def test_values_of_every_kind_travel_through_add(stage: Stage) -> None:
    given: list[object] = []

    @stage.task_handler("/worker")
    def worker(  # type: ignore[no-untyped-def]  # one parameter has no annotation
        at: datetime,
        color: Color,
        item: Item,
        items: list[Item],
        amount: Decimal,
        maybe: int | None,
        raw: bytes,
        limited: Annotated[int, Limit(gt=0)],
        infinite: float,
        anything: Any,
        untyped=7,
    ) -> None:
        given.append((at, color, item, items, amount, maybe, raw, limited, infinite, anything, untyped))

    values = (
        NOON, Color.RED, Item(name="x"), [Item(name="y", price=Decimal("2.50"))], Decimal("0.1"), None,
        b"\x00\xffbytes", 3, float("inf"), {"deep": [1, None]},
    )  # fmt: skip
    async with stage.running():
        worker.add(*values)
        await stage.settled()
    assert given == [(*values, 7)]


async def test_a_parameter_may_have_a_name_that_pydantic_uses(stage: Stage) -> None:
    given: list[object] = []

    @stage.task_handler("/worker")
    def worker(json: int, copy: bool, schema: str, model_config: str, model_fields: str, self: str, _x: int) -> None:
        given.append((json, copy, schema, model_config, model_fields, self, _x))

    async with stage.running():
        worker.add(1, True, "s", "c", "f", "me", 2)
        await stage.settled()
    assert given == [(1, True, "s", "c", "f", "me", 2)]


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ({"params": {"n": "many"}}, "n: "),
        ({"params": {}}, "n: Field required"),
        ({"params": {"n": 0}}, "n: "),
        ({"payload": "[1]", "headers": {"Content-Type": "application/json"}}, "worker"),
        ({"payload": "{", "headers": {"Content-Type": "application/json"}}, "worker"),
        ({"payload": b"\xff", "headers": {"Content-Type": "application/json"}}, "worker"),
        ({"payload": "[" * 100_000, "headers": {"Content-Type": "application/json"}}, "worker"),
        ({"payload": "n=1&n=%ff", "headers": {"Content-Type": "application/x-www-form-urlencoded"}}, "worker"),
    ],
)
async def test_what_does_not_fit_is_dead_at_once_and_names_the_parameter(
    stage: Stage, task: dict[str, Any], text: str
) -> None:
    calls: list[int] = []

    @stage.task_handler("/worker")
    def worker(n: Annotated[int, Limit(gt=0)]) -> None:
        calls.append(n)

    async with stage.running():
        await taskqueue.add_async(url="/worker", **task)
        dead = await stage.dead()
    assert calls == []
    assert (dead.dead_reason, dead.attempt_count) == ("permanent", 1)
    assert dead.last_error is not None
    assert text in dead.last_error
    assert "many" not in dead.last_error, "payloads are not kept in messages"


# What is injected.


async def test_session_request_and_task_are_injected_in_any_position(stage: Stage) -> None:
    given: list[object] = []

    @stage.task_handler("/worker")
    def worker(task: TaskContext, key: str, session: Session, n: int, request: Request) -> None:
        session.add(Tally(key=key, count=n))
        given.append((task.queue_name, task.attempt, task.body, request.url.path))

    async with stage.running():
        worker.add("x", 3)
        await stage.settled()
    assert given == [("default", 1, b'{"key":"x","n":3}', "/worker")]
    assert stage.tally() == {"x": 3}


@ASYNCIO
async def test_an_async_session_is_injected(async_stage: Stage) -> None:
    @async_stage.task_handler("/worker")
    async def worker(key: str, session: AsyncSession) -> None:
        session.add(Tally(key=key, count=1))
        await session.flush()

    async with async_stage.running():
        worker.add(key="x")
        await async_stage.settled()
    assert async_stage.tally() == {"x": 1}
    assert async_stage.task_count() == 0


async def test_sync_handlers_run_in_threads_of_their_own_and_async_ones_on_the_loop(stage: Stage) -> None:
    threads: dict[str, int] = {}

    @stage.task_handler("/sync")
    def sync() -> None:
        threads["sync"] = threading.get_ident()

    @stage.task_handler("/async")
    async def on_loop() -> None:
        threads["async"] = threading.get_ident()

    async with stage.running():
        # No thread of the framework's is free: a handler does not wait for one.
        limiter = anyio.to_thread.current_default_thread_limiter()
        for n in range(int(limiter.total_tokens)):
            limiter.acquire_on_behalf_of_nowait(n)
        sync.add()
        on_loop.add()
        await stage.settled(2)
        for n in range(int(limiter.total_tokens)):
            limiter.release_on_behalf_of(n)
    assert threads["async"] == threading.get_ident()
    assert threads["sync"] != threading.get_ident()


# What is returned.


@pytest.mark.parametrize(
    "result",
    [None, "text", {"a": [NOON]}, Item(name="x"), object(), PlainTextResponse("x", 201)],
    ids=lambda result: type(result).__name__,  # the same in every process of a parallel run
)
@pytest.mark.parametrize("is_async", [True, False])
async def test_whatever_a_handler_returns_is_a_success(stage: Stage, result: object, is_async: bool) -> None:
    async def on_loop() -> object:
        return result

    stage.task_handler("/worker")(on_loop if is_async else lambda: result)
    settled = await delivered(stage)
    assert settled.accepted
    assert stage.task_count() == 0


async def test_a_response_of_the_handler_is_the_answer(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def worker() -> PlainTextResponse:
        return PlainTextResponse("no", 409, headers={"X-Hookware-No-Retry": "1"})

    async with stage.running():
        worker.add()
        dead = await stage.dead()
    assert (dead.last_status, dead.dead_reason) == (409, "permanent")


async def test_an_async_function_behind_a_plain_wrapper_is_awaited(stage: Stage) -> None:
    ran: list[str] = []

    async def inner() -> None:
        ran.append("inner")

    stage.task_handler("/worker")(lambda: inner())
    await delivered(stage)
    assert ran == ["inner"]


# What is refused when it is registered.


def test_a_parameter_that_no_task_can_fill_is_refused() -> None:
    def star(*args: str) -> None: ...

    def stars(**kwargs: str) -> None: ...

    def only_positional(key: str, /) -> None: ...

    def odd(key: threading.Thread) -> None: ...

    def unknown(key: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821 - that is what is tried

    def sync_with_async_session(session: AsyncSession) -> None: ...

    def generator() -> Any:
        yield

    async def async_generator() -> Any:
        yield

    functions: list[Any] = [
        star, stars, only_positional, odd, unknown, sync_with_async_session, generator, async_generator
    ]  # fmt: skip
    for number, function in enumerate(functions):
        with pytest.raises(ConfigurationError, match=function.__name__):
            TaskRouter().task_handler(f"/{number}")(function)


@pytest.mark.parametrize("url", ["", "worker", "//worker", "/worker?a=1", "/a/../b", "http://x/worker", "/a%2fb"])
def test_a_path_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="task_handler"):
        TaskRouter().task_handler(url)


def test_a_path_has_one_handler() -> None:
    router = TaskRouter()

    @router.task_handler("/worker")
    def one() -> None: ...

    def two() -> None: ...

    with pytest.raises(ConfigurationError, match=r"one.*another path"):
        router.task_handler("/%77orker")(two)
    router.task_handler("/worker")(one.function)  # a module imported again is no clash
    assert len(router) == 1


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((), {}, "n: "),
        (("many",), {}, "n: "),
        ((1, 2), {}, "takes 1 argument"),
        ((1,), {"n": 2}, "'n' is given twice"),
        ((), {"n": 1, "m": 2}, "'m' is not a parameter"),
        ((), {"n": 1, "session": None, "request": None}, "'request' is not a parameter"),
    ],
)
def test_add_refuses_arguments_that_do_not_fit(arguments: tuple[Any, ...], options: dict[str, Any], text: str) -> None:
    @TaskRouter().task_handler("/worker")
    def worker(request: Request, n: int) -> None: ...

    with pytest.raises(InvalidTaskError, match=text):
        worker.add(*arguments, **options)


async def test_an_injected_parameter_leaves_its_name_to_the_option(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def worker(key: str, session: Session) -> None: ...

    async with stage.running():
        with Session(stage.sync_engine) as session:
            worker.add("k", session=session, countdown=60)
            assert stage.task_count() == 0
            session.commit()
        assert stage.task_count() == 1
