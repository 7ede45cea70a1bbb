"""One request through the unit of work: who commits when, and what the client may believe.

A 2xx never leaves before the tasks it stands for are durable: the request's own session commits before the first
byte of the response. In a delivery nobody waits, so it commits when the app's call has returned without raising.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hookware.answer import is_success
from hookware.delivery import Delivery
from hookware.errors import SessionError
from hookware.store.sql.conflict import collision_in, conflict_in, sees_snapshot
from hookware.unit_of_work import UnitOfWork, current_unit

_ERROR_BODY = b"Internal Server Error"


async def serve_request(app: ASGIApp, unit: UnitOfWork, scope: Scope, receive: Receive, send: Send) -> None:
    """Pass a network request through `app` in a unit of work."""
    response = _CommittingSend(unit, send)
    token = current_unit.set(unit)
    unit.outbox.under_way_count += 1
    try:
        await app(scope, receive, response.send)
        if not unit.response_started:
            await unit.rollback()
    except BaseException:
        await unit.rollback()
        raise
    finally:
        unit.outbox.under_way_count -= 1
        current_unit.reset(token)
        if response.status < 400:
            unit.warn_of_tasks_left_behind()


class _CommittingSend:
    """Commits the unit of work before it lets the response's start pass."""

    def __init__(self, unit: UnitOfWork, send: Send) -> None:
        self._unit = unit
        self._send = send
        self._replaced = False
        self.status = 500

    async def send(self, message: Message) -> None:
        if self._replaced:
            return
        if message["type"] == "http.response.start" and not self._unit.response_started:
            await self._end_unit(int(message["status"]))
        await self._send(message)

    async def _end_unit(self, status: int) -> None:
        try:
            if status < 400:
                await self._unit.commit()
            else:
                await self._unit.rollback()
        except Exception:
            # The app's answer would be a lie now; the app learns of it by the exception.
            self._replaced = True
            await self._send_error()
            raise
        self.status = status
        self._unit.response_started = True

    async def _send_error(self) -> None:
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(_ERROR_BODY))]
        await self._send({"type": "http.response.start", "status": 500, "headers": headers})
        await self._send({"type": "http.response.body", "body": _ERROR_BODY})
        self._unit.response_started = True


class Succeeding(Protocol):
    """An answer that may be a success."""

    @property
    def succeeded(self) -> bool:
        """Whether it is one by now."""
        ...


async def serve_delivery(
    app: ASGIApp, unit: UnitOfWork, delivery: Delivery, scope: Scope, receive: Receive, send: Send
) -> None:
    """Pass a task through `app` in a unit of work, and commit its effect together with its completion."""
    answer = _WatchedSend(send)
    await serve_task(partial(app, scope, receive, answer.send), answer, unit, delivery)


async def serve_task(
    handle: Callable[[], Awaitable[None]], answer: Succeeding, unit: UnitOfWork, delivery: Delivery
) -> None:
    """Let a task be handled in a unit of work, and commit its effect together with its completion."""
    token = current_unit.set(unit)
    unit.outbox.under_way_count += 1
    try:
        with delivery.trace():
            await handle()
        if answer.succeeded:
            _check_completion(unit, delivery)
            await unit.commit()
        else:
            delivery.refused = True
            await unit.rollback()
    except BaseException as error:
        delivery.failure = error
        delivery.conflict = conflict_in(error)
        delivery.sees_snapshot = delivery.sees_snapshot or sees_snapshot(error)
        if delivery.conflict is None and not delivery.collided:
            delivery.conflict = collision_in(error)
            delivery.collided = delivery.conflict is not None
        await unit.rollback()
        raise
    finally:
        unit.outbox.under_way_count -= 1
        current_unit.reset(token)
        if answer.succeeded:
            unit.warn_of_tasks_left_behind()


def _check_completion(unit: UnitOfWork, delivery: Delivery) -> None:
    if unit.completing and not delivery.completed:
        raise SessionError(
            "complete_in(session) was called, but the task's end was not committed with that session: call "
            "session.commit() before the handler returns, and complete_in outside of savepoints that are rolled back"
        )


class _WatchedSend:
    """Watches whether an answer is a success: 2xx, down to its last byte, by the rules of ASGI."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._status = 0
        self._finished = False
        self._refused = False

    @property
    def succeeded(self) -> bool:
        return is_success(self._status) and self._finished and not self._refused

    async def send(self, message: Message) -> None:
        try:
            await self._send(message)
        except BaseException:
            self._refused = True  # the app may swallow this; its effect must not be committed all the same
            raise
        if message["type"] == "http.response.start":
            self._status = int(message["status"])
        elif message["type"] == "http.response.body":
            self._finished = not message.get("more_body", False)
