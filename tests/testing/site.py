"""A small app whose tasks are tested: handlers that are idempotent, and others that are not."""

import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import Depends, FastAPI
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlmodel import Session
from starlette.testclient import TestClient

from hookware import Hookware, PermanentTaskFailure, Queue, TaskRouter, taskqueue

SLOW = Queue("slow", rate="1/m", bucket_size=1)


def _sessions_of(engine: Engine) -> Callable[[], Iterator[Session]]:
    def get_session() -> Iterator[Session]:
        with Session(engine) as session:
            yield session

    return get_session


def _adding(
    api: "weakref.ref[FastAPI]", get_session: Callable[[], Iterator[Session]]
) -> Callable[[str, str, float, str], str]:
    """Give the route that adds a task. FastAPI never forgets a function: it must not hold the app."""

    def add(url: str, key: str = "", countdown: float = 0, queue_name: str = "default") -> str:
        held = api()
        assert held is not None
        session = next(iter(held.dependency_overrides.get(get_session, get_session)()))
        taskqueue.add(
            url=url, params={"key": key}, countdown=countdown, queue_name=queue_name, session=session, method="POST"
        )
        session.commit()
        return "added"

    return add


class Site:
    """An app on one database; `handled` is what its handlers were given, whatever became of it."""

    def __init__(self, engine: Engine, *, added: bool = False, **options: Any) -> None:
        self.engine, self.handled = engine, list[str]()
        self.router = TaskRouter()
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS effect (key VARCHAR(20))"))
        self._add_handlers()
        api = FastAPI()
        self.api, self.get_session = api, _sessions_of(engine)
        api.post("/add")(_adding(weakref.ref(api), self.get_session))
        given: dict[str, Any] = {
            "engine": engine,
            "router": self.router,
            "queues": [SLOW],
            "unknown_queues": "allow",
        } | options
        if added:
            api.add_middleware(Hookware, **given)
            self.app: Any = api
        else:
            self.app = Hookware(api, **given)

    def _add_handlers(self) -> None:
        @self.router.task_handler("/once")
        def once(session: Session, key: str = "") -> None:
            self.handled.append(key)
            session.execute(text("INSERT INTO effect VALUES (:key)"), {"key": key})

        @self.router.task_handler("/again")
        def again(key: str = "") -> None:
            self.handled.append(key)
            with Session(self.engine) as session:
                session.execute(text("INSERT INTO effect VALUES (:key)"), {"key": key})
                session.commit()

        @self.router.task_handler("/broken")
        def broken() -> None:
            raise LookupError("nothing is found")

        @self.router.task_handler("/hopeless")
        def hopeless() -> None:
            raise PermanentTaskFailure("never")

        @self.router.task_handler("/endless")
        def endless() -> None:
            taskqueue.add(url="/endless")

        self.once = once

    @contextmanager
    def client(self) -> Iterator[TestClient]:
        """Serve it, with its lifespan."""
        with TestClient(self.app) as client:
            yield client

    def effects(self) -> list[str]:
        """What is in the database, in order."""
        with self.engine.connect() as connection:
            return sorted(connection.execute(text("SELECT key FROM effect")).scalars())

    def forget(self) -> None:
        """Have no effects."""
        with self.engine.begin() as connection:
            connection.execute(text("DELETE FROM effect"))


def async_site(engine: AsyncEngine) -> tuple[Any, Any]:
    """Give an app on an AsyncEngine, and its session dependency."""
    router, api = TaskRouter(), FastAPI()

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session:
            yield session

    @router.task_handler("/once")
    async def once(session: AsyncSession, key: str = "") -> None:
        connection = await session.connection()
        await connection.execute(text("INSERT INTO effect VALUES (:key)"), {"key": key})

    async def add(key: str, session: AsyncSession = Depends(get_session)) -> None:  # noqa: B008 - FastAPI's way
        taskqueue.add(url="/once", params={"key": key}, session=session)
        await session.commit()

    api.post("/add")(add)
    return Hookware(api, engine=engine, router=router), (api, get_session)
