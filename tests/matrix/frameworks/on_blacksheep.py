"""A BlackSheep app: coroutines, with an AsyncSession."""

from contextlib import AsyncExitStack

from blacksheep import Application, Request
from starlette.types import ASGIApp

from hookware import Hookware, require_task
from tests.matrix import async_shop

app = Application()
_open = AsyncExitStack()


@app.on_start
async def start(_app: Application) -> None:
    await _open.enter_async_context(async_shop.async_lifespan(app))


@app.on_stop
async def stop(_app: Application) -> None:
    await _open.aclose()


@app.router.post("/order")
async def take_order(key: str, url: str, end: str) -> str:
    await async_shop.take_order(key, url, end)
    return ""


@app.router.post("/worker")
async def worker(request: Request) -> str:
    require_task(request)
    await async_shop.make_effect(await _key(request))
    return ""


@app.router.post("/slow")
async def slow(request: Request) -> str:
    await async_shop.make_effect_slowly(await _key(request))
    return ""


async def _key(request: Request) -> str:
    form = await request.form()
    assert form is not None
    return str(form["key"])


def make() -> ASGIApp:
    return Hookware(app, engine=async_shop.async_engine)
