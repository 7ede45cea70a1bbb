"""A Falcon app: coroutines, with an AsyncSession."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from falcon.asgi import App, Request, Response
from starlette.types import ASGIApp

from hookware import Hookware, require_task
from tests.matrix import async_shop


class Lifespan:
    def __init__(self) -> None:
        self._open = AsyncExitStack()

    async def process_startup(self, scope: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        await self._open.enter_async_context(async_shop.async_lifespan(None))

    async def process_shutdown(self, scope: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        await self._open.aclose()


class TakeOrder:
    async def on_post(self, request: Request, response: Response) -> None:
        asked = [request.get_param(name, required=True) for name in ("key", "url", "end")]
        await async_shop.take_order(*asked)


class Worker:
    async def on_post(self, request: Request, response: Response) -> None:
        require_task(request)
        await async_shop.make_effect((await request.get_media())["key"])


class Slow:
    async def on_post(self, request: Request, response: Response) -> None:
        await async_shop.make_effect_slowly((await request.get_media())["key"])


def make() -> ASGIApp:
    app = App(middleware=[Lifespan()])
    app.add_route("/order", TakeOrder())
    app.add_route("/worker", Worker())
    app.add_route("/slow", Slow())
    return Hookware(app, engine=async_shop.async_engine)
