"""One attempt, against real apps: what is a success, what is a failure, and what never leaves the attempt."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from email.utils import formatdate

import anyio
import anyio.to_thread
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hookware.config import Config
from hookware.core.lifecycle import Conflicted, Failed, Outcome, Succeeded
from hookware.core.task import LeasedTask
from hookware.delivery import SCOPE_KEY, Delivery, Target
from hookware.env import Env
from hookware.errors import PermanentTaskFailure
from tests.calling import deliver
from tests.samples import SteppedEnv, leased_task

TWO_ERRORS = ExceptionGroup("two", [ValueError("a"), KeyError("b")])
SHORT = leased_task(deadline_us=30_000)
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
END: Message = {"type": "http.response.body", "body": b"ok"}
MORE: Message = {"type": "http.response.body", "body": b"ok", "more_body": True}


async def attempt(
    app: ASGIApp, task: LeasedTask | None = None, *, env: Env | None = None, state: dict[str, object] | None = None
) -> Outcome:
    """Deliver once; what lingers after that is cancelled."""
    async with anyio.create_task_group() as calls:
        target = Target(app, state or {}, calls)
        outcome = await deliver(
            target, Delivery(task or leased_task()), env=env or Env(), config=Config(overrun_seconds=0.02)
        )
        calls.cancel_scope.cancel()
    return outcome


def failed(outcome: Outcome) -> Failed:
    assert isinstance(outcome, Failed), outcome
    return outcome


def sends(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def starlette(endpoint: Callable[[Request], Awaitable[Response] | Response], *middleware: Middleware) -> Starlette:
    return Starlette(routes=[Route("/worker", endpoint, methods=["POST"])], middleware=middleware)


def answers(status: int, headers: dict[str, str] | None = None) -> Starlette:
    return starlette(lambda request: Response(status_code=status, headers=headers))


def raises(error: BaseException) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return app


# What a handler is given.


async def test_the_request_is_the_task_byte_for_byte() -> None:
    seen: list[Scope] = []
    bodies: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        bodies.append(await Request(scope, receive).body())
        await Response()(scope, receive, send)

    task = leased_task(
        url="/caf%C3%A9/x?a=1&b=%20", method="PUT", headers=(("x-mine", "1"), ("x-mine", "2")), body=b"\x00\xff"
    )
    state: dict[str, object] = {"pool": object()}
    assert await attempt(app, task, state=state) == Succeeded(200)
    scope = seen[0]
    assert (scope["type"], scope["http_version"], scope["scheme"]) == ("http", "1.1", "http")
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert (scope["method"], scope["path"]) == ("PUT", "/café/x")
    assert (scope["raw_path"], scope["query_string"]) == (b"/caf%C3%A9/x", b"a=1&b=%20")
    assert [value for name, value in scope["headers"] if name == b"x-mine"] == [b"1", b"2"]
    assert scope["client"] == ("0.1.0.2", 0)
    assert (scope["root_path"], scope["extensions"]) == ("", {})
    assert bodies == [b"\x00\xff"]
    assert scope["state"] == state
    assert scope["state"] is not state
    assert isinstance(scope[SCOPE_KEY], Delivery)
    assert scope[SCOPE_KEY].task is task


async def test_no_context_variable_of_the_caller_is_visible() -> None:
    user: ContextVar[str] = ContextVar("user", default="nobody")
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(user.get())
        user.set("the handler")
        await Response()(scope, receive, send)

    user.set("the enqueuing request")
    await attempt(app)
    assert seen == ["nobody"]
    assert user.get() == "the enqueuing request"


async def test_a_streaming_response_completes_on_starlette() -> None:
    sent: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number in range(20):
            sent.append(number)
            yield b"x"

    app = starlette(lambda request: StreamingResponse(chunks()))
    assert await attempt(app) == Succeeded(200)
    assert sent == list(range(20))


async def test_receive_blocks_after_the_body() -> None:
    received: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            received.append(await receive())

    assert isinstance(await attempt(app, SHORT), Failed)
    assert received == [{"type": "http.request", "body": b"", "more_body": False}]


async def test_receive_says_disconnect_when_the_response_is_complete_and_not_before() -> None:
    happened: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:  # as Quart does: it returns when the client has gone
            while (message := await receive())["type"] != "http.disconnect":
                happened.append(message["type"])
            happened.append("http.disconnect")

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            for message in (START, MORE, MORE, END):
                await anyio.wait_all_tasks_blocked()
                happened.append(message["type"])
                await send(message)

    assert await attempt(app) == Succeeded(200)
    bodies = ["http.response.body"] * 3
    assert happened == ["http.request", "http.response.start", *bodies, "http.disconnect"]


# What the status says.


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_2xx_is_success(status: int) -> None:
    assert await attempt(answers(status)) == Succeeded(status)


@pytest.mark.parametrize("status", [100, 199, 300, 302, 307, 308, 400, 404, 409, 429, 500, 503, 599])
async def test_any_other_status_is_failure(status: int) -> None:
    outcome = failed(await attempt(sends({**START, "status": status}, END)))
    assert outcome.status == status
    assert not outcome.permanent
    assert outcome.error.startswith(f"answered {status}")
    assert ("redirects are not followed" in outcome.error) == (300 <= status < 400)


async def test_a_route_that_does_not_exist_is_a_failure() -> None:
    assert failed(await attempt(answers(200), leased_task(url="/elsewhere"))).status == 404


async def test_the_no_retry_header_makes_a_failure_final() -> None:
    assert failed(await attempt(answers(422, {"X-Hookware-No-Retry": "1"}))).permanent
    assert not failed(await attempt(answers(422, {"X-Hookware-No-Retry": "0"}))).permanent
    assert await attempt(answers(200, {"X-Hookware-No-Retry": "1"})) == Succeeded(200)


@pytest.mark.parametrize(
    ("status", "value", "seconds"),
    [
        (429, "120", 120),
        (503, "0", 0),
        (503, formatdate(1_700_000_090, usegmt=True), 90),
        (503, formatdate(1_600_000_000, usegmt=True), 0),
        (503, "99999999999999999999999999", 30 * 86_400),
        (503, "Fri, 31 Dec 9999 23:59:59 GMT", 30 * 86_400),
        (429, "-5", 0),
        (429, "soon", 0),
        (429, "²", 0),
        (500, "120", 0),
        (301, "120", 0),
    ],
)
async def test_retry_after_postpones_on_429_and_503_only(status: int, value: str, seconds: int) -> None:
    raw = {**START, "status": status, "headers": [(b"Retry-After", value.encode("latin-1"))]}
    assert failed(await attempt(sends(raw, END), env=SteppedEnv())).retry_after_us == seconds * 1_000_000


# What the call does after, or instead of, answering.


async def test_a_background_task_that_fails_after_200_is_a_failure() -> None:
    def late() -> None:
        raise ValueError("the effect is gone")

    app = starlette(lambda request: PlainTextResponse("ok", background=BackgroundTask(late)))
    outcome = failed(await attempt(app))
    assert outcome.error == "ValueError: the effect is gone"
    assert outcome.status == 200


async def test_an_exception_in_a_starlette_handler_is_a_500_with_its_text() -> None:
    async def broken(request: Request) -> Response:
        raise KeyError("missing")

    assert await attempt(starlette(broken)) == Failed(500, "KeyError: 'missing'")


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([], "the app returned without a response"),
        ([START], "the response ended without its last body message (status 200, 0 bytes)"),
        ([START, MORE, MORE], "the response ended without its last body message (status 200, 4 bytes)"),
    ],
)
async def test_a_response_cut_short_is_a_failure(messages: list[Message], error: str) -> None:
    assert failed(await attempt(sends(*messages))).error == error


@pytest.mark.parametrize(
    "messages",
    [
        [END],
        [START, START],
        [START, END, END],
        [{"type": "http.response.start", "status": "200"}],
        [{"type": "http.response.start", "status": 42}],
        [{"type": "http.response.start"}],
        [{"type": "http.response.start", "status": 200, "headers": [(b"odd",)]}],
        [START, {"type": "http.response.body", "body": 5}],
        [START, {"type": "websocket.send"}],
        [{}],
    ],
)
async def test_breaking_the_protocol_is_a_failure_even_if_the_app_swallows_the_error(messages: list[Message]) -> None:
    complaints: list[str] = []

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            try:
                await send(message)
            except RuntimeError as error:
                complaints.append(str(error))

    outcome = failed(await attempt(stubborn))
    assert outcome.error.startswith("the app broke the ASGI protocol: ")
    assert complaints == [outcome.error]
    assert isinstance(await attempt(sends(*messages)), Failed)


# Time.


async def test_a_handler_that_hangs_is_cancelled_at_its_deadline() -> None:
    cancelled: list[bool] = []

    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(True)

    assert await attempt(hangs, SHORT) == Failed(None, "no response within 0.03 s (it had not begun)")
    assert cancelled == [True]


async def test_an_endless_response_is_stopped_at_the_deadline() -> None:
    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        while True:
            await send(MORE)

    outcome = failed(await attempt(endless, SHORT))
    assert outcome.error.startswith("no response within 0.03 s (status 200, ")


async def test_success_after_the_deadline_by_the_clock_is_a_failure() -> None:
    env = SteppedEnv()

    def slow(request: Request) -> Response:  # a sync handler: nothing can cancel it
        env.advance(30.001)
        return Response()

    assert failed(await attempt(starlette(slow), env=env)).error.startswith("no response within 30 s")


async def test_success_at_the_deadline_exactly_is_in_time() -> None:
    env = SteppedEnv()

    def slow(request: Request) -> Response:
        env.advance(30)
        return Response()

    assert await attempt(starlette(slow), env=env) == Succeeded(200)


async def test_a_handler_that_ignores_cancellation_does_not_hold_the_attempt() -> None:
    ended = anyio.Event()
    release = anyio.Event()

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.CancelScope(shield=True):
            await release.wait()
        await Response()(scope, receive, send)
        ended.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as calls:
            outcome = await deliver(
                Target(stubborn, {}, calls), Delivery(SHORT), env=Env(), config=Config(overrun_seconds=0.02)
            )
            assert failed(outcome).error.startswith("no response within")
            assert not ended.is_set()
            release.set()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_handler_that_swallows_every_cancellation_does_not_hold_the_attempt() -> None:
    release = asyncio.Event()

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    with anyio.fail_after(5):
        async with anyio.create_task_group() as calls:
            outcome = await deliver(
                Target(stubborn, {}, calls), Delivery(SHORT), env=Env(), config=Config(overrun_seconds=0.02)
            )
            assert failed(outcome).error.startswith("no response within")
            release.set()


async def test_an_app_that_asks_for_a_disconnect_again_and_again_leaves_the_loop_to_others() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def ask() -> None:
            while True:
                await receive()

        async with anyio.create_task_group() as asking:
            asking.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            await Response()(scope, receive, send)
            asking.cancel_scope.cancel()

    with anyio.fail_after(5):
        assert await attempt(app) == Succeeded(200)


# What a handler may raise.


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (MemoryError(), "MemoryError"),
        (RecursionError("deep"), "RecursionError: deep"),
        (TWO_ERRORS, "ExceptionGroup: two (2 sub-exceptions); ValueError: a; KeyError: 'b'"),
        (BaseExceptionGroup("bad", [SystemExit(1)]), "BaseExceptionGroup: bad (1 sub-exception); SystemExit: 1"),
        (UnspeakableError(), "UnspeakableError: its message cannot be shown"),
        (ValueError("\ud800 \x00"), "ValueError: ? \x00"),
    ],
)  # fmt: skip
async def test_whatever_is_raised_is_a_failure_with_a_text(
    error: BaseException, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)  # a lone surrogate in a captured log breaks the pipe between pytest's processes
    assert await attempt(raises(error)) == Failed(None, text)


async def test_a_huge_message_is_bounded() -> None:
    assert len(failed(await attempt(raises(ValueError("x" * 10_000_000)))).error) == 2000
    group = ExceptionGroup("many", [ValueError("x" * 5000) for _ in range(1000)])
    assert len(failed(await attempt(raises(group))).error) == 2000


async def test_a_raising_log_handler_changes_nothing() -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ValueError("the log is full")

    logger, handler = logging.getLogger("hookware"), Broken()
    logger.addHandler(handler)
    try:
        assert await attempt(raises(ValueError("a"))) == Failed(None, "ValueError: a")
    finally:
        logger.removeHandler(handler)


def cancel_natively() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel("mine")


async def cancels_itself_when_it_is_cut_short(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        cancel_natively()


async def raises_one_of_its_own_when_it_is_cut_short(scope: Scope, receive: Receive, send: Send) -> None:
    with suppress(asyncio.CancelledError):
        await anyio.sleep_forever()
    raise asyncio.CancelledError("mine")  # as of a future that somebody else has cancelled


async def cancels_itself_and_waits(scope: Scope, receive: Receive, send: Send) -> None:
    cancel_natively()
    await anyio.sleep_forever()


async def cancels_itself_and_returns(scope: Scope, receive: Receive, send: Send) -> None:
    await Response()(scope, receive, send)
    cancel_natively()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("app", "outcome"),
    [
        (cancels_itself_when_it_is_cut_short, Failed(None, "no response within 0.03 s (it had not begun)")),
        (raises_one_of_its_own_when_it_is_cut_short, Failed(None, "no response within 0.03 s (it had not begun)")),
        (cancels_itself_and_waits, Failed(None, "CancelledError: mine")),
        (cancels_itself_and_returns, Succeeded(200)),
    ],
)
async def test_a_handler_that_cancels_its_own_task_ends_nothing_but_its_attempt(app: ASGIApp, outcome: Outcome) -> None:
    async with anyio.create_task_group() as calls:
        assert await deliver(Target(app, {}, calls), Delivery(SHORT), env=Env(), config=Config()) == outcome
    assert not calls.cancel_scope.cancel_called


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancelled_error_of_the_handler_itself_is_a_failure() -> None:
    assert await attempt(raises(asyncio.CancelledError("mine"))) == Failed(None, "CancelledError: mine")

    async def cancels_itself(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    assert isinstance(await attempt(cancels_itself), Failed)


@pytest.mark.parametrize(
    "error",
    [PermanentTaskFailure("no use"), ExceptionGroup("g", [ExceptionGroup("h", [PermanentTaskFailure("no use")])])],
)
async def test_permanent_task_failure_forbids_another_attempt(error: Exception) -> None:
    assert failed(await attempt(raises(error))).permanent

    async def broken(request: Request) -> Response:
        raise error

    async def pass_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        return await call_next(request)

    stacked = starlette(broken, *[Middleware(BaseHTTPMiddleware, dispatch=pass_on)] * 2)
    assert failed(await attempt(stacked)).permanent


async def test_a_url_that_does_not_decode_is_a_failure() -> None:
    assert failed(await attempt(answers(200), leased_task(url="http://elsewhere/"))).status is None


# What the layers on the way wrote on the delivery.


def marks(mark: Callable[[Delivery], None], then: ASGIApp) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        mark(scope[SCOPE_KEY])
        await then(scope, receive, send)

    return app


def complete(delivery: Delivery) -> None:
    delivery.completed = True


def lose_lease(delivery: Delivery) -> None:
    delivery.lease_lost = True


def conflict(delivery: Delivery) -> None:
    delivery.conflict = "deadlock detected"


def fail(delivery: Delivery) -> None:
    delivery.failure = PermanentTaskFailure("said late")


@pytest.mark.parametrize(
    "then", [answers(200), answers(500), raises(ValueError("late")), sends()], ids=["200", "500", "raises", "silent"]
)
async def test_a_completed_task_has_succeeded_whatever_happened_later(then: ASGIApp) -> None:
    outcome = await attempt(marks(complete, then))
    assert isinstance(outcome, Succeeded)
    assert outcome.completed


async def test_a_completed_task_has_succeeded_even_if_its_handler_hangs() -> None:
    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep_forever()

    assert await attempt(marks(complete, hangs), SHORT) == Succeeded(200, completed=True)


async def test_a_lost_lease_a_conflict_and_a_failure_stand_above_the_status() -> None:
    assert "newer attempt" in failed(await attempt(marks(lose_lease, answers(200)))).error
    assert await attempt(marks(conflict, raises(ValueError()))) == Conflicted("deadlock detected")
    assert await attempt(marks(fail, answers(200))) == Failed(200, "PermanentTaskFailure: said late", permanent=True)


# Cancellation from outside.


async def test_the_callers_cancellation_reaches_the_handler_and_propagates() -> None:
    entered, cancelled = anyio.Event(), anyio.Event()
    outcomes: list[Outcome] = []

    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async with anyio.create_task_group() as calls, anyio.create_task_group() as callers:

        async def call() -> None:
            outcomes.append(
                await deliver(Target(hangs, {}, calls), Delivery(leased_task()), env=Env(), config=Config())
            )

        callers.start_soon(call)
        await entered.wait()
        callers.cancel_scope.cancel()
    assert cancelled.is_set()
    assert outcomes == []


async def test_a_call_cancelled_between_its_response_and_its_end_is_no_success() -> None:
    answered = anyio.Event()
    outcomes: list[Outcome] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response()(scope, receive, send)
        answered.set()
        await anyio.sleep_forever()  # a BackgroundTask

    async with anyio.create_task_group() as calls, anyio.create_task_group() as callers:

        async def call() -> None:
            outcomes.append(await deliver(Target(app, {}, calls), Delivery(leased_task()), env=Env(), config=Config()))

        callers.start_soon(call)
        await answered.wait()
        callers.cancel_scope.cancel()
    assert outcomes == []


async def test_a_handler_that_finishes_in_spite_of_the_cancellation_has_succeeded() -> None:
    entered, release = anyio.Event(), anyio.Event()
    outcomes: list[Outcome] = []

    async def careful(scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.CancelScope(shield=True):
            entered.set()
            await release.wait()
            await Response()(scope, receive, send)

    async with anyio.create_task_group() as calls, anyio.create_task_group() as callers:

        async def call() -> None:
            outcomes.append(
                await deliver(Target(careful, {}, calls), Delivery(leased_task()), env=Env(), config=Config())
            )

        callers.start_soon(call)
        await entered.wait()
        callers.cancel_scope.cancel()
        release.set()
    assert outcomes == [Succeeded(200)]


async def test_a_sync_handler_runs_in_a_thread_and_its_exit_stays_there() -> None:
    def exits(request: Request) -> Response:
        raise SystemExit(9)

    assert failed(await attempt(starlette(exits))).error == "SystemExit: 9"
