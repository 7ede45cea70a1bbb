"""What a type checker knows of a handler. Never run: mypy reads it, and an ignore that is not needed is an error."""

from typing import assert_type

from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request

from hookware import Task, TaskContext, TaskHandler, TaskRouter, task_handler

router = TaskRouter()


@task_handler("/plain")
def plain(key: str, n: int = 1) -> str:
    return key * n


@task_handler("/session")
def with_session(session: Session, key: str) -> None: ...


@router.task_handler("/async")
async def with_async_session(session: AsyncSession, key: str) -> None: ...


@router.task_handler("/two")
def with_two(task: TaskContext, session: Session, key: str) -> None: ...


@router.task_handler("/request")
def with_request(request: Request, *, key: str) -> None: ...


@router.task_handler("/nothing", public=True)
def nothing() -> None: ...


async def check() -> None:
    """Add with right and wrong arguments."""
    assert_type(plain.add("x", n=2), Task)
    assert_type(await plain.add_async(key="x"), Task)
    assert_type(plain("x"), str)
    assert_type(nothing, TaskHandler[[], None])
    with_session.add("x")
    with_session.add(key="x")
    with_session.options(countdown=60).add(key="x")
    await with_async_session.add_async("x")
    with_two.add(key="x")
    with_request.add(key="x")
    nothing.add()

    plain.add()  # type: ignore[call-arg]  # the key is missing
    plain.add(5)  # type: ignore[arg-type]  # the key is text
    plain.add("x", m=2)  # type: ignore[call-arg]  # no such parameter
    with_session.add("x", "y")  # type: ignore[call-arg]  # the session is not the caller's to give
    with_two.add("x", n=1)  # type: ignore[call-arg]  # nor here
    with_request.add("x")  # type: ignore[call-arg]  # by keyword only
    nothing.add(1)  # type: ignore[call-arg]  # it takes nothing
    plain.options(countdwn=60)  # type: ignore[call-arg]  # an option that is none
    plain.options(countdown="soon")  # type: ignore[arg-type]  # an option of another type
