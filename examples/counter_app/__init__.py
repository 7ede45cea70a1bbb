"""App Engine's counter demo of 2009, reborn: a click adds a task, the task counts. Run it with `scripts/run`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qsl

from sqlmodel import Field, Session, SQLModel, create_engine, select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from hookware import Hookware, task_handler, taskqueue

engine = create_engine(os.environ.get("COUNTER_DATABASE_URL", "sqlite:///counter.db"))
templates = Jinja2Templates(Path(__file__).parent / "templates")


class Counter(SQLModel, table=True):
    key: str = Field(primary_key=True)
    count: int = 0


class Click(SQLModel):
    key: str = Field(min_length=1, max_length=100)
    times: int = Field(default=1, ge=1, le=1000)
    wait: float = Field(default=0, ge=0, le=3600)


def home(request: Request) -> Response:
    with Session(engine) as session:
        counters = session.exec(select(Counter).order_by(Counter.key)).all()
    return templates.TemplateResponse(request, "counters.html", {"counters": counters})


async def click(request: Request) -> Response:
    try:
        form = Click.model_validate(dict(parse_qsl((await request.body()).decode())))
    except ValueError as error:
        return PlainTextResponse(f"{error}\n", status_code=400)
    if form.times == 1:
        taskqueue.add(url="/worker", params={"key": form.key}, countdown=form.wait)
    else:
        count_many.options(countdown=form.wait).add(key=form.key, left=form.times)
    return RedirectResponse("/", status_code=303)


@task_handler("/worker")
def count_one(session: Session, key: str) -> None:
    _count(session, key, 1)


@task_handler("/worker/many")
def count_many(session: Session, key: str, left: int) -> None:
    """Count a chunk, and add the task back while it has more to do: all in one transaction."""
    _count(session, key, min(left, 10))
    if left > 10:
        count_many.add(key=key, left=left - 10)


def _count(session: Session, key: str, times: int) -> None:
    counter = session.get(Counter, key, with_for_update=True) or Counter(key=key)
    counter.count += times
    session.add(counter)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    SQLModel.metadata.create_all(engine, tables=[SQLModel.metadata.tables["counter"]])
    yield
    engine.dispose()


app = Starlette(routes=[Route("/", home), Route("/", click, methods=["POST"])], lifespan=lifespan)
app.add_middleware(Hookware, engine=engine)
