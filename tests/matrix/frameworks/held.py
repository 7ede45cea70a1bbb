"""The app of the SIGTERM phases: it holds still where it is told to, until the gate opens.

MATRIX_HOLD names the place, a failpoint or one of the app's own. Nothing holds before the file MATRIX_ARMED exists;
what holds goes on when the file MATRIX_GATE does. MATRIX_OPTIONS (JSON) goes to Hookware.
"""

import json
import os
import threading
from pathlib import Path

import anyio
from sqlmodel import Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hookware import Hookware, task_handler
from hookware.env import Env
from tests.matrix.shop import Effect, engine, lifespan, make_effect, order, tell


class HoldingEnv(Env):
    """The real world, with a place to hold still in."""

    def __init__(self) -> None:
        super().__init__()
        self._place = os.environ["MATRIX_HOLD"]
        self._armed, self._gate = Path(os.environ["MATRIX_ARMED"]), Path(os.environ["MATRIX_GATE"])
        self._has_held = False

    def fp(self, name: str) -> None:
        if name == self._place and not self._has_held and self._armed.exists():
            self._has_held = True
            tell("holds")
            while not self._gate.exists():
                threading.Event().wait(0.02)


env = HoldingEnv()


def take_order(request: Request) -> Response:
    asked = request.query_params
    with Session(engine) as session:
        order(session, asked["key"], asked["url"], asked["end"])
        env.fp("order")
        session.commit()
    return Response()


@task_handler("/worker")
def worker(key: str, session: Session) -> None:
    """Make the effect in hookware's session: it commits together with the task's end."""
    env.fp("handler")
    session.add(Effect(key=key))


@task_handler("/settled")
def settled(key: str) -> None:
    """Make the effect in a session of its own: the task's end is settled afterwards."""
    make_effect(key)


@task_handler("/long")
async def long(key: str, session: Session) -> None:
    """Take far longer than the drain, if it is the first attempt."""
    if not os.environ["MATRIX_IS_SECOND_RUN"]:
        tell("holds")
        await anyio.sleep(600)
    session.add(Effect(key=key))


def make() -> ASGIApp:
    app = Starlette(routes=[Route("/order", take_order, methods=["POST"])], lifespan=lifespan)
    hookware = Hookware(app, engine=engine, env=env, **json.loads(os.environ["MATRIX_OPTIONS"]))

    async def telling(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_and_tell() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                tell("told to stop")
            return message

        await hookware(scope, receive_and_tell if scope["type"] == "lifespan" else receive, send)

    return telling
