"""The app under attack, for a server process: a private handler, and a page that shows what reaches the app."""

import json
import os

from sqlalchemy import make_url
from sqlmodel import Session
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from hookware import Hookware, task_handler, taskqueue
from hookware.delivery import SCOPE_KEY
from tests.databases import Database
from tests.stage import Stage, Tally

stage = Stage(Database(url=make_url(os.environ["SITE_DATABASE_URL"])))


@task_handler("/worker")
def worker(session: Session, request: Request) -> Response:
    session.merge(Tally(key=str(len(stage.tally())), count=1))
    return Response("the handler ran")


async def site(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        text = json.dumps({"path": scope["path"], "headers": shown(scope), "delivery": SCOPE_KEY in scope})
        await send({"type": "websocket.send", "text": text})
        await send({"type": "websocket.close"})
    elif scope["type"] == "http":
        if scope["path"] == "/add":
            taskqueue.add(url="/worker")
        page = {"path": scope["path"], "headers": shown(scope), "delivery": SCOPE_KEY in scope}
        await JSONResponse(page)(scope, receive, send)


def shown(scope: Scope) -> list[str]:
    return [name.decode("latin-1") for name, _value in scope["headers"]]


app = Hookware(site, engine=stage.sync_engine)
