"""The public face: App Engine's own answers, then add() and Queue."""

import datetime
import json
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from sqlalchemy import Engine, create_engine

from hookware import Hookware
from hookware import task as task_module
from hookware import taskqueue as tq
from hookware.core.task import Draft, NewTask
from hookware.events import TasksCommitted
from hookware.taskqueue import Queue, Task, TaskRetryOptions
from tests.serving import Recorder as EventRecorder
from tests.serving import serving

VECTORS = json.loads((Path(__file__).parent / "vectors" / "task_vectors.json").read_text())
NAMESPACE_HEADER_BYTES = len("x-appengine-current-namespace") + 4
"""App Engine sends this header with an empty value, and counts it in a task's size; we have no namespaces."""

DIFFERENCES: dict[str, tuple[str, str]] = {
    "Task(name='a\\n')": ("InvalidTaskNameError", "a line break is not one of the allowed characters"),
    "Task(payload=0,url='/w')": ("InvalidTaskError", "0 is no payload, and would be lost silently"),
}
QUEUES = [Queue("q"), Queue("pull", mode="pull"), Queue("a"), Queue("b")]
"""What the vectors were made with."""


class Recorder:
    """Stands for the transaction: gives ids, and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[dict[str, object]] = []
        self.drafts: list[Draft] = []
        self.error: Exception | None = None

    def enqueue(
        self, drafts: Sequence[Draft], *, session: object | None, connection: object | None, transactional: bool | None
    ) -> list[NewTask]:
        if self.error is not None:
            raise self.error
        self.calls.append({"session": session, "connection": connection, "transactional": transactional})
        first_id = 1000 + len(self.drafts)
        self.drafts.extend(drafts)
        return [
            NewTask(id=first_id + n, queue_name=d.queue_name, name=d.name, method=d.method, url=d.url,
                    headers=d.headers, body=d.body)
            for n, d in enumerate(drafts)
        ]  # fmt: skip

    async def enqueue_async(
        self, drafts: Sequence[Draft], *, session: object | None, connection: object | None, transactional: bool | None
    ) -> list[NewTask]:
        return self.enqueue(drafts, session=session, connection=connection, transactional=transactional)


@pytest.fixture(autouse=True)
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(task_module, "enqueue", recorder.enqueue)
    monkeypatch.setattr(task_module, "enqueue_async", recorder.enqueue_async)
    return recorder


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/tasks.db")
    yield engine
    engine.dispose()


@pytest.fixture
def configured(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hookware]:
    """Give a Hookware with the queues of the vectors, and let calls reach it."""
    monkeypatch.undo()  # the real transaction
    hookware = Hookware(engine=engine, dispatch=False, queues=QUEUES)
    hookware._outbox.running = True  # as while its lifespan runs
    yield hookware
    hookware._outbox.running = False
    hookware._outbox.runner.dispose()


def evaluate(expr: str) -> object:
    return eval(expr, {"Task": Task, "R": TaskRetryOptions, "tq": tq, "datetime": datetime, "u": "ü"})


def written(value: object) -> object:
    """Give a value as the vectors write it: long ones by their length."""
    if isinstance(value, bytes):
        return {"bytes_len": len(value)} if len(value) > 300 else {"bytes": value.decode("latin-1")}
    if isinstance(value, str) and len(value) > 300:
        return {"str_len": len(value)}
    return value


def seen(result: object, expected: dict[str, object]) -> dict[str, object]:
    """Give what the vector tells of a result."""
    if "repr" in expected:
        return {"repr": repr(result)}
    assert isinstance(result, Task | TaskRetryOptions)
    told = {name: written(getattr(result, name)) for name in expected}
    if isinstance(result, Task):
        told["size"] = result.size + NAMESPACE_HEADER_BYTES
    return told


def test_every_difference_is_about_a_vector() -> None:
    assert set(DIFFERENCES) <= {vector["expr"] for vector in VECTORS["client"]}


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize("vector", VECTORS["client"], ids=lambda vector: vector["expr"][:100])
def test_the_client_answers_as_app_engine_does(vector: dict[str, Any]) -> None:
    expr = vector["expr"]
    outcome = DIFFERENCES[expr][0] if expr in DIFFERENCES else vector.get("raises", "ok")
    if outcome != "ok":
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the vector says which
            evaluate(expr)
        assert type(caught.value).__name__ == outcome
        return
    result = evaluate(expr)
    if expr not in DIFFERENCES:
        assert seen(result, vector["ok"]) == vector["ok"]


@pytest.mark.parametrize("vector", [v for v in VECTORS["client"] if v.get("bases")], ids=lambda v: v["expr"][:100])
def test_exceptions_stand_where_app_engine_has_them(vector: dict[str, Any]) -> None:
    bases = [base.__name__ for base in getattr(tq, vector["raises"]).__mro__]
    assert bases[: bases.index("Error") + 1] == vector["bases"]


def test_the_constants_are_those_of_app_engine_but_for_the_size() -> None:
    constants = {name: str(getattr(tq, name)) for name in VECTORS["constants"]}
    ours = {"MAX_TASK_SIZE_BYTES": 1_048_576, "MAX_PUSH_TASK_SIZE_BYTES": 1_048_576}
    assert constants == {name: str(value) for name, value in (VECTORS["constants"] | ours).items()}


def test_add_makes_a_task_and_gives_it_its_id_name_and_queue(recorder: Recorder) -> None:
    task = tq.add(url="/worker", params={"key": "x"})
    assert recorder.drafts == [
        Draft(
            queue_name="default",
            name=None,
            method="POST",
            url="/worker",
            headers=(("content-type", "application/x-www-form-urlencoded"),),
            body=b"key=x",
        )
    ]
    assert recorder.calls == [{"session": None, "connection": None, "transactional": None}]
    assert (task.id, task.name, task.queue_name, task.was_enqueued) == (1000, "1000", "default", True)


def test_add_takes_what_a_task_takes(recorder: Recorder) -> None:
    options = TaskRetryOptions(task_retry_limit=2)
    task = tq.add(
        b"x", queue_name="mail", url="/w", method="PUT", name="n", headers={"X-A": "b"}, countdown=1.5,
        retry_options=options, dispatch_deadline=2, target="t",
    )  # fmt: skip
    assert recorder.drafts == [
        Draft(
            queue_name="mail",
            name="n",
            method="PUT",
            url="/w",
            headers=(("x-a", "b"),),
            body=b"x",
            countdown_us=1_500_000,
            retry=options,
            deadline_us=2_000_000,
        )
    ]
    assert task.name == "n"


def test_session_connection_and_transactional_reach_the_transaction(recorder: Recorder) -> None:
    session, connection = object(), object()
    tq.add(url="/w", session=session, transactional=True)
    Task(url="/w").add("q", False, connection=connection)
    Queue("q").add([Task(url="/w")], True, session=session)
    assert recorder.calls == [
        {"session": session, "connection": None, "transactional": True},
        {"session": None, "connection": connection, "transactional": False},
        {"session": session, "connection": None, "transactional": True},
    ]


async def test_the_async_twins_do_the_same(recorder: Recorder) -> None:
    session = object()
    first = await tq.add_async(url="/w", queue_name="a", session=session, transactional=True)
    second = await Task(url="/w").add_async("b", False)
    third = await Queue("c").add_async(Task(url="/w"), session=session)
    several = await Queue("d").add_async([Task(url="/w"), Task(url="/w")])
    assert await Queue("e").add_async(None) == []
    assert [task.queue_name for task in (first, second, third, *several)] == ["a", "b", "c", "d", "d"]
    assert recorder.calls == [
        {"session": session, "connection": None, "transactional": True},
        {"session": None, "connection": None, "transactional": False},
        {"session": session, "connection": None, "transactional": None},
        {"session": None, "connection": None, "transactional": None},
    ]


def test_one_task_comes_back_as_it_is_and_several_as_a_list(recorder: Recorder) -> None:
    task = Task(url="/w")
    several = [Task(url="/w"), Task(url="/w")]
    assert Queue("q").add(task) is task
    assert Queue("q").add(iter(several)) == several
    assert [t.id for t in several] == [1001, 1002]
    assert len(recorder.calls) == 2


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_nothing_to_add_touches_no_transaction(recorder: Recorder, nothing: None) -> None:
    assert Queue("q").add(nothing) == []
    assert recorder.calls == []


def many(count: int) -> list[Task]:
    return [Task(url="/w") for _ in range(count)]


def refusals() -> Iterator[tuple[list[Any], type[Exception]]]:
    added, twice = Task(url="/w"), Task(url="/w")
    added._enqueued(NewTask(id=1, queue_name="q", name=None, method="POST", url="/w", headers=(), body=b""))
    pull = Task(method="PULL", payload="x")
    yield many(101), tq.TooManyTasksError
    yield [*many(2), Task(name="a"), Task(name="a", url="/x")], tq.DuplicateTaskNameError
    yield [*many(2), added], tq.BadTaskStateError
    yield [twice, twice], tq.BadTaskStateError
    yield [added, Task(name="a"), Task(name="a")], tq.BadTaskStateError
    yield [Task(name="a"), Task(name="a"), added], tq.DuplicateTaskNameError
    yield [*many(100), pull], tq.InvalidTaskError
    yield [*many(101), pull], tq.InvalidTaskError
    yield [*many(2), pull], tq.InvalidTaskError
    yield [*many(2), "/w"], TypeError


@pytest.mark.parametrize(("tasks", "error"), list(refusals()))
def test_if_one_cannot_be_added_none_is(recorder: Recorder, tasks: list[Any], error: type[Exception]) -> None:
    before = [isinstance(task, Task) and task.was_enqueued for task in tasks]
    with pytest.raises(error):
        Queue("q").add(tasks)
    assert recorder.calls == []
    assert [isinstance(task, Task) and task.was_enqueued for task in tasks] == before


def test_a_hundred_tasks_are_one_call(recorder: Recorder) -> None:
    Queue("q").add(many(100))
    assert (len(recorder.calls), len(recorder.drafts)) == (1, 100)


def test_an_endless_iterator_is_refused() -> None:
    with pytest.raises(tq.TooManyTasksError):
        Queue("q").add(repeat(Task(url="/w")))


def test_unnamed_tasks_are_no_duplicates(recorder: Recorder) -> None:
    Queue("q").add([Task(name=""), Task(name=""), Task(), Task()])
    assert [draft.name for draft in recorder.drafts] == [None] * 4


def test_a_task_is_added_once() -> None:
    task = tq.add(url="/w")
    with pytest.raises(tq.BadTaskStateError, match="make a new Task"):
        task.add()


async def test_a_taken_name_leaves_only_its_task_out(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real transaction
    hookware = Hookware(engine=engine, dispatch=False)
    events = EventRecorder(hookware)
    async with serving(hookware):
        await tq.add_async(url="/w", name="taken")
        for add in (Queue("default").add_async, blocking(Queue("default").add)):
            tasks = [
                Task(url="/1"),
                Task(url="/2", name="taken"),
                Task(url="/3"),
                Task(url="/4", name=f"free-{id(add)}"),
            ]
            with pytest.raises(tq.TaskAlreadyExistsError, match="'taken'"):
                await add(tasks)
            assert [task.was_enqueued for task in tasks] == [True, False, True, True]
            assert await stored_urls(hookware, tasks) == ["/1", None, "/3", "/4"]
            with pytest.raises(tq.BadTaskStateError):
                await add(tasks)
    assert [event.count for event in events.events if isinstance(event, TasksCommitted)] == [1, 3, 3]


async def test_a_key_that_waits_leaves_only_its_task_out(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real transaction
    hookware = Hookware(engine=engine, dispatch=False)
    async with serving(hookware):
        await tq.add_async(url="/w", key="z", countdown=99)
        for n, add in enumerate((Queue("default").add_async, blocking(Queue("default").add))):
            new = [Task(url="/3", key=f"new {n}", on_conflict="raise") for _ in range(2)]
            tasks = [Task(url="/1", key="z", on_conflict="raise"), Task(url="/2"), *new]
            with pytest.raises(tq.TaskAlreadyExistsError, match=f"'new {n}'"):
                await add(tasks)
            assert [task.was_enqueued for task in tasks] == [False, True, True, False]
            assert await stored_urls(hookware, tasks) == [None, "/2", "/3", None]


def blocking(add: Any) -> Any:
    async def in_thread(tasks: list[Task]) -> list[Task]:
        result: list[Task] = await anyio.to_thread.run_sync(add, tasks)
        return result

    return in_thread


async def stored_urls(hookware: Hookware, tasks: list[Task]) -> list[str | None]:
    stored = [None if task.id is None else await hookware.inspector.get(task.id) for task in tasks]
    return [None if info is None else info.url for info in stored]


def test_a_task_that_the_transaction_refused_can_be_added_again(recorder: Recorder) -> None:
    task = Task(name="n", url="/w")
    recorder.error = tq.TaskAlreadyExistsError("taken")
    with pytest.raises(tq.TaskAlreadyExistsError):
        task.add()
    assert (task.was_enqueued, task.id, task.queue_name, task.name) == (False, None, None, "n")
    recorder.error = None
    assert task.add().was_enqueued


@pytest.mark.parametrize("name", ["", "a_b", "a b", "ü", "a\n", "a" * 101, None, 5])
def test_a_queue_name_keeps_the_rule(recorder: Recorder, name: str) -> None:
    for add in (lambda: Queue(name), lambda: tq.add(queue_name=name), lambda: Task().add(name)):
        with pytest.raises(tq.InvalidQueueNameError):
            add()
    assert recorder.calls == []


def test_queues_of_one_name_are_equal() -> None:
    assert Queue("a") == Queue("a") != Queue("b")
    assert len({Queue("a"), Queue("a"), Queue("b")}) == 2
    assert Queue() == Queue("default") != "default"
    assert Queue("a").name == "a"


def test_an_unknown_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="colour"):
        tq.add(url="/w", colour="red")  # type: ignore[call-arg] # what the test is about
