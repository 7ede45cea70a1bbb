"""A Quart app: coroutines, with an AsyncSession."""

from collections.abc import AsyncGenerator

from quart import Quart, request
from starlette.types import ASGIApp

from hookware import Hookware, require_task
from tests.matrix import async_shop

app = Quart(__name__)


@app.while_serving
async def lifespan() -> AsyncGenerator[None]:
    async with async_shop.async_lifespan(app):
        yield


@app.post("/order")
async def take_order() -> str:
    await async_shop.take_order(request.args["key"], request.args["url"], request.args["end"])
    return ""


@app.post("/worker")
async def worker() -> str:
    require_task(request)
    await async_shop.make_effect((await request.form)["key"])
    return ""


@app.post("/slow")
async def slow() -> str:
    await async_shop.make_effect_slowly((await request.form)["key"])
    return ""


def make() -> ASGIApp:
    return Hookware(app, engine=async_shop.async_engine)
