"""Starlette apps, and one that hookware refuses to start with."""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from hookware import Hookware
from tests.matrix.shop import engine, handle_tasks, lifespan, order_in_a_session


def _starlette(middleware: list[Middleware] | None = None) -> Starlette:
    handle_tasks()
    routes = [Route("/order", order_in_a_session, methods=["POST"])]
    return Starlette(routes=routes, middleware=middleware, lifespan=lifespan)


def _layer() -> Middleware:
    return Middleware(Hookware, engine=engine)


def wrapped() -> ASGIApp:
    return Hookware(_starlette(), engine=engine)


def added() -> ASGIApp:
    return _starlette([_layer()])


def behind_three() -> ASGIApp:
    """Such middlewares call the app in a task of their own, with a copy of the context."""

    async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    between = [Middleware(BaseHTTPMiddleware, dispatch=pass_on) for _ in range(3)]
    return _starlette([_layer(), *between])


def misconfigured() -> ASGIApp:
    return _starlette([Middleware(Hookware, engine=engine, concurrency=0)])
