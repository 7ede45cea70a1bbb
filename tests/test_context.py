"""What routes may ask about the task that they run for, and about all tasks."""

from pathlib import Path

import pytest
from sqlalchemy import create_engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from hookware import Hookware, async_request_session, inspector, request_session, taskqueue
from hookware.errors import ConfigurationError, SessionError
from tests.asgi import request
from tests.serving import serving


async def test_inspector_needs_no_instance_inside_and_outside_of_a_request(tmp_path: Path) -> None:
    async def urls(_request: Request) -> JSONResponse:
        return JSONResponse([task.url for task in await inspector().list_tasks()])

    engine = create_engine(f"sqlite:///{tmp_path}/tasks.db")
    app = Starlette(routes=[Route("/urls", urls)])
    app.add_middleware(Hookware, engine=engine, dispatch=False)
    async with serving(app):
        task = await taskqueue.add_async(url="/somewhere")
        assert (await request(app, "/urls", method="GET")).body == b'["/somewhere"]'
        assert [info.id for info in await inspector().list_tasks()] == [task.id]
        assert await inspector().delete(task.id or 0)
        assert (await request(app, "/urls", method="GET")).body == b"[]"
    engine.dispose()


async def test_which_of_two_to_look_at_must_be_said_by_the_request(tmp_path: Path) -> None:
    engines = [create_engine(f"sqlite:///{tmp_path}/{name}.db") for name in ("one", "two")]
    one, two = (Hookware(engine=engine, dispatch=False) for engine in engines)
    async with serving(one), serving(two):
        with pytest.raises(ConfigurationError, match="2 Hookware instances"):
            inspector()
    for engine in engines:
        engine.dispose()


def test_the_own_sessions_are_for_requests_only() -> None:
    with pytest.raises(SessionError, match="passed through Hookware"):
        request_session()
    with pytest.raises(SessionError, match="passed through Hookware"):
        async_request_session()
