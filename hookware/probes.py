"""Is this process alive, and is it ready? For Kubernetes, load balancers and the like, which ask by HTTP."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from hookware.context import hookware_here
from hookware.errors import ConfigurationError
from hookware.store.sql.outbox import Outbox
from hookware.vitals import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a process is.

    Attributes:
        reasons: what is wrong; nothing: all is well.
        failing_loops: the background loops that fail now, and try again. They tell where to look; that they fail is no
            reason to end the process or to send it no requests.
    """

    reasons: tuple[str, ...] = ()
    failing_loops: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return not self.reasons


class Probe:
    """Answers whether a process is well.

    `app.add_route("/livez", livez.endpoint)` in Starlette and FastAPI; for others it is an ASGI app itself, or asked by
    `await livez.report()`. It answers 200 or 503 with `{"status": ..., "reasons": [...], "failing_loops": [...]}`, in
    which there are neither addresses nor texts of errors.
    """

    def __init__(self, find_reasons: Callable[[Outbox], Awaitable[tuple[str, ...]]], *, needs_hookware: bool) -> None:
        self._find_reasons, self._needs_hookware = find_reasons, needs_hookware

    async def report(self) -> Report:
        """Find out how the process is."""
        try:
            outbox = hookware_here()
        except ConfigurationError as error:
            return Report(reasons=(str(error),) if self._needs_hookware else ())
        return Report(reasons=await self._find_reasons(outbox), failing_loops=tuple(sorted(outbox.vitals.failing())))

    async def endpoint(self, _request: Request) -> Response:
        """Give the answer: for a route of Starlette or FastAPI."""
        report = await self.report()
        body = {
            "status": "ok" if report.ok else "unavailable",
            "reasons": report.reasons,
            "failing_loops": report.failing_loops,
        }
        return JSONResponse(body, 200 if report.ok else 503, headers={"cache-control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request: for any ASGI framework."""
        response = await self.endpoint(Request(scope, receive))
        await response(scope, receive, send)


async def _not_alive(outbox: Outbox) -> tuple[str, ...]:
    return tuple(f"the loop {name} has ended, and nobody starts it again" for name in outbox.vitals.ended)


async def _not_ready(outbox: Outbox) -> tuple[str, ...]:
    vitals = outbox.vitals
    if vitals.phase is not Phase.RUNNING:
        return (vitals.phase.value,)
    if not await vitals.database.wait():
        return (f"the database does not answer ({type(vitals.database.error).__name__})",)
    return await _not_alive(outbox)


livez = Probe(_not_alive, needs_hookware=False)
"""Alive: the event loop turns, as the answer itself shows, and every background loop runs, or has not begun yet.

A database that is away does not make it fail: a restart would not bring it back.
"""

readyz = Probe(_not_ready, needs_hookware=True)
"""Ready: the app's lifespan has begun and does not end, and the database has answered within the last second or two."""
