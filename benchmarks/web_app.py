"""The app of the web measure: a request that writes a row, commits, and leaves a task that adds one to another row.

uvicorn runs it, told by BENCH_SYSTEM, BENCH_PLACE (JSON) and BENCH_RUNS, "yes" if tasks are to run in this process.
The route and its SQLAlchemy code are the same for every system; only the commit is the system's own.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from sqlmodel import Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from benchmarks.handlers import Click
from benchmarks.systems import APART, INSIDE, make
from benchmarks.systems.base import Place, System


def app_of(system: System, *, runs: bool, wraps: bool) -> ASGIApp:
    """Make the app with one system; `wraps`: it is a middleware, else it is open while the app is."""

    def click(request: Request) -> Response:
        key = request.query_params["key"]
        with Session(system.engine) as session:
            session.add(Click(key=key))
            background = system.commit_with_task(session, "increment", key)
        return Response(background=background)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = 40
        if wraps:
            yield
            return
        async with system.opened(runs=runs):
            yield

    app = Starlette(routes=[Route("/", click, methods=["POST"])], lifespan=lifespan)
    return system.wrap(app, runs=runs) if wraps else app


def served() -> ASGIApp:
    """Be the factory that uvicorn calls."""
    name = os.environ["BENCH_SYSTEM"]
    system = make(name, Place(**json.loads(os.environ["BENCH_PLACE"])))
    for word in os.environ.get("BENCH_TUNED", "").split():
        attribute, _, value = word.partition("=")
        setattr(system, attribute, int(value))
    return app_of(system, runs=os.environ["BENCH_RUNS"] == "yes", wraps=name in INSIDE + APART)
