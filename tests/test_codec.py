"""`Hookware(codec=...)`: what lies in the database is encoded, and handlers see what was added."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlmodel import Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hookware import Codec, PermanentTaskFailure, TaskContext, TaskIdentity, request_session, require_task, taskqueue
from hookware.config import Config
from hookware.core.codec import CODEC_HEADER
from hookware.core.lifecycle import Retry
from hookware.core.task import LeasedTask, NewTask
from hookware.encoding import decoded, encoded
from hookware.errors import ConfigurationError, TaskTooLargeError
from tests.databases import EVERY_ASYNC_DRIVER, EVERY_DATABASE_ON_A_LOOP
from tests.stage import AT_ONCE, Stage, Tally

SECRET = b"the secret"


class Reversed:
    """Writes backwards, and notes for which task."""

    name = "reversed"

    def __init__(self) -> None:
        self.seen: list[TaskIdentity] = []

    def encode(self, body: bytes, task: TaskIdentity) -> bytes:
        self.seen.append(task)
        return b"<" + body[::-1]

    def decode(self, body: bytes, task: TaskIdentity) -> bytes:
        self.seen.append(task)
        if not body.startswith(b"<"):
            raise ValueError(f"no < in {body!r}")
        return body[:0:-1]


class Failing(Reversed):
    """Raises what it is given instead of decoding."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def decode(self, body: bytes, task: TaskIdentity) -> bytes:
        raise self._error


def listening(stage: Stage) -> list[tuple[bytes, dict[str, str]]]:
    """Register a handler that notes bodies and headers."""
    given: list[tuple[bytes, dict[str, str]]] = []

    @stage.task_handler("/worker")
    async def worker(request: Request, task: TaskContext) -> None:
        body = await request.body()
        assert task.body == body
        assert request.headers["content-length"] == str(len(body))
        given.append((body, dict(task.headers)))

    return given


def bodies(stage: Stage) -> list[bytes]:
    return [bytes(body) for body in stage.rows("SELECT body FROM hookware_task ORDER BY id")]


async def add_at_once(stage: Stage) -> None:
    await taskqueue.add_async(SECRET, url="/worker")


async def add_blocking(stage: Stage) -> None:
    taskqueue.add(SECRET, url="/worker", transactional=False)


async def add_in_session(stage: Stage) -> None:
    with Session(stage.sync_engine) as session:
        taskqueue.add(SECRET, url="/worker", session=session)
        session.add(Tally(key="x", count=1))
        session.commit()


async def add_on_connection(stage: Stage) -> None:
    with stage.sync_engine.begin() as connection:
        taskqueue.add(SECRET, url="/worker", connection=connection)


async def add_several(stage: Stage) -> None:
    await taskqueue.Queue().add_async([taskqueue.Task(SECRET, url="/worker"), taskqueue.Task(b"", url="/worker")])


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("add", [add_at_once, add_blocking, add_in_session, add_on_connection, add_several])
async def test_the_database_holds_the_encoded_body_and_the_handler_gets_the_plain_one(
    stage: Stage, add: Callable[[Stage], Any]
) -> None:
    codec, given = Reversed(), listening(stage)
    async with stage.running(codec=codec, dispatch=False):
        await add(stage)
    stored = bodies(stage)
    assert stored[0] == b"<" + SECRET[::-1]
    async with stage.running(codec=codec):
        await stage.settled(len(stored))
    assert max(body for body, _ in given) == SECRET
    assert all(CODEC_HEADER not in headers for _, headers in given)
    assert stage.task_count() == 0


@EVERY_ASYNC_DRIVER
async def test_it_is_encoded_in_an_async_session_too(async_stage: Stage) -> None:
    given = listening(async_stage)
    async with async_stage.running(codec=Reversed(), dispatch=False):
        assert async_stage.async_engine is not None
        async with async_stage.async_engine.begin() as connection:
            await taskqueue.add_async(SECRET, url="/worker", connection=connection)
    assert bodies(async_stage) == [b"<" + SECRET[::-1]]
    async with async_stage.running(codec=Reversed()):
        await async_stage.settled()
    assert given[0][0] == SECRET


async def test_tasks_of_a_request_are_encoded_and_an_ordinary_route_gets_them_plain(stage: Stage) -> None:
    given: list[bytes] = []

    async def view(request: Request) -> PlainTextResponse:
        request_session().add(Tally(key="x", count=1))
        taskqueue.add(SECRET, url="/later")
        return PlainTextResponse("")

    async def later(request: Request) -> PlainTextResponse:
        require_task(request)
        given.append(await request.body())
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/", view), Route("/later", later, methods=["POST"])])
    async with stage.running(app, codec=Reversed()):
        await taskqueue.add_async(url="/", method="GET")
        await stage.settled(2)
    assert given == [SECRET]


async def test_a_codec_is_told_whose_body_it_has(stage: Stage) -> None:
    codec = Reversed()
    listening(stage)
    async with stage.running(codec=codec):
        task = await taskqueue.add_async(SECRET, url="/worker", name="one", queue_name="mail")
        await stage.settled()
    assert task.id is not None
    assert codec.seen == [TaskIdentity(id=task.id, queue_name="mail", name="one")] * 2


async def test_an_empty_body_stays_empty(stage: Stage) -> None:
    codec, given = Reversed(), listening(stage)
    async with stage.running(codec=codec):
        await taskqueue.add_async(url="/worker")
        await stage.settled()
    assert (given, codec.seen) == ([(b"", {})], [])


async def test_a_task_that_was_stored_before_the_codec_came_runs_all_the_same(stage: Stage) -> None:
    given = listening(stage)
    async with stage.running(dispatch=False):
        await taskqueue.add_async(b"<plain", url="/worker")  # what looks encoded is not
    async with stage.running(codec=Reversed()):
        await stage.settled()
    assert given[0][0] == b"<plain"


async def test_a_body_that_is_already_encoded_comes_back_as_it_was(stage: Stage) -> None:
    given = listening(stage)
    async with stage.running(codec=Reversed()):
        await taskqueue.add_async(b"<terces eht", url="/worker", headers={"X-Hookware-Codec": "reversed"})
        await stage.settled()
    assert given[0][0] == b"<terces eht"


@pytest.mark.parametrize("name", [CODEC_HEADER, "X-Hookware-Codec", "x_hookware_codec"])
async def test_no_task_can_say_that_it_is_encoded(stage: Stage, name: str) -> None:
    given = listening(stage)
    async with stage.running():
        await taskqueue.add_async(b"<plain", url="/worker", headers={name: "reversed"})
        await stage.settled()
    assert given[0][0] == b"<plain"


async def test_the_limit_counts_the_plain_body(stage: Stage) -> None:
    given = listening(stage)
    async with stage.running(codec=Reversed(), max_body_bytes=10):
        await taskqueue.add_async(b"x" * 10, url="/worker")
        with pytest.raises(TaskTooLargeError):
            await taskqueue.add_async(b"x" * 11, url="/worker")
        await stage.settled()
    assert given[0][0] == b"x" * 10


async def test_inspection_shows_the_stored_body_and_which_codec_made_it(stage: Stage) -> None:
    async with stage.running(codec=Reversed(), dispatch=False) as hookware:
        await taskqueue.add_async(SECRET, url="/worker")
        [task] = await hookware.inspector.list_tasks()
    assert task.body == b"<" + SECRET[::-1]
    assert (CODEC_HEADER, "reversed") in task.headers


# What cannot be decoded.


async def spoilt(stage: Stage, codec: Codec | None) -> str:
    """Store an encoded task, run it by a Hookware with another codec, and give the error of its first attempt."""
    given = listening(stage)
    async with stage.running(codec=Reversed(), dispatch=False):
        await taskqueue.add_async(SECRET, url="/worker")
    async with stage.running(codec=codec):
        [event] = await stage.settled()
        await taskqueue.add_async(url="/worker")  # the others go on
        await stage.settled(2)
    assert len(given) == 1
    assert isinstance(event.decision, Retry)
    return event.decision.error


class Other(Reversed):
    name = "other"


@pytest.mark.parametrize(("codec", "has"), [(None, "none"), (Other(), "'other'")])
async def test_without_its_codec_a_task_is_tried_again(stage: Stage, codec: Codec | None, has: str) -> None:
    error = await spoilt(stage, codec)
    assert f"encoded by the codec 'reversed', and this process has {has}" in error


async def test_a_codec_that_raises_lets_the_task_be_tried_again_and_shows_no_payload(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    error = await spoilt(stage, Failing(ValueError(f"cannot read {SECRET!r}")))
    assert error == "Error: the codec 'reversed' cannot decode the payload: ValueError"
    assert SECRET.decode() not in caplog.text


async def test_a_missing_codec_that_comes_back_runs_the_task(stage: Stage) -> None:
    await spoilt(stage, None)
    stage.execute("UPDATE hookware_task SET eta_us = 0")
    async with stage.running(codec=Reversed()):
        await stage.settled()
    assert stage.task_count() == 0


async def test_a_permanent_failure_of_the_codec_makes_the_task_dead(stage: Stage) -> None:
    listening(stage)
    async with stage.running(codec=Failing(PermanentTaskFailure("the key is destroyed"))):
        await taskqueue.add_async(SECRET, url="/worker", retry_options=AT_ONCE)
        task = await stage.dead()
    assert (task.dead_reason, task.last_error) == ("permanent", "PermanentTaskFailure: the key is destroyed")


class NoBytes(Reversed):
    def encode(self, body: bytes, task: TaskIdentity) -> Any:
        return "text"

    def decode(self, body: bytes, task: TaskIdentity) -> Any:
        return None


def new_task() -> NewTask:
    return NewTask(id=1, queue_name="default", name=None, method="POST", url="/", headers=(), body=b"x")


def leased(headers: tuple[tuple[str, str], ...], body: bytes) -> LeasedTask:
    return LeasedTask(
        id=1, fence=1, queue_name="default", name=None, method="POST", url="/", headers=headers, body=body, eta_us=0,
        attempt_count=1, crash_count=0, first_attempt_us=0, claimed_us=0, last_status=None, retry=None, deadline_us=1,
    )  # fmt: skip


def test_a_codec_must_give_bytes() -> None:
    with pytest.raises(ConfigurationError, match=r"gave str: encode\(\) must return bytes"):
        encoded(NoBytes(), new_task())
    with pytest.raises(ConfigurationError, match=r"gave NoneType: decode\(\) must return bytes"):
        decoded(NoBytes(), leased(((CODEC_HEADER, "reversed"),), b"<x"))


class Named(Reversed):
    def __init__(self, name: Any) -> None:
        super().__init__()
        self.name = name


@pytest.mark.parametrize("codec", [5, object(), Named(""), Named(None), Named("a\nb"), Named("é€"), "aes"])
def test_what_is_no_codec_is_refused(codec: Any) -> None:
    with pytest.raises(ConfigurationError, match="codec"):
        Config(codec=codec)
