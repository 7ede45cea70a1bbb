"""A Litestar app: functions in threads, with a Session."""

from typing import Annotated, Any

from litestar import Litestar, Request, post
from litestar.enums import RequestEncodingType
from litestar.params import Body
from starlette.types import ASGIApp

from hookware import Hookware, require_task
from tests.matrix import shop

Form = Annotated[dict[str, str], Body(media_type=RequestEncodingType.URL_ENCODED)]


@post("/order", sync_to_thread=True)
def take_order(key: str, url: str, end: str) -> None:
    shop.take_order(key, url, end)


@post("/worker", sync_to_thread=True)
def worker(request: Request[Any, Any, Any], data: Form) -> None:
    require_task(request)
    shop.make_effect(data["key"])


@post("/slow", sync_to_thread=True)
def slow(data: Form) -> None:
    shop.make_effect_slowly(data["key"])


def make() -> ASGIApp:
    return Hookware(Litestar([take_order, worker, slow], lifespan=[shop.lifespan]), engine=shop.engine)
