"""What may not be deferred is refused at the call, and once more where the task runs: nothing of it is imported."""

import functools
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hookware import deferred, task_handler, taskqueue
from hookware.errors import ConfigurationError, InvalidTaskError
from hookware.store.base import TaskInfo
from tests.deferring import functions
from tests.deferring.functions import Greeter
from tests.stage import Stage

URL = "/_ah/queue/deferred"
PACKAGE = ["tests.deferring"]


def nested() -> Callable[[], None]:
    def inner() -> None:
        """Lost with the function around it."""

    return inner


@task_handler("/only-for-this-test")
def handler() -> None:
    """Has an `add` of its own."""


REFUSED = [
    pytest.param(lambda: None, "it is a lambda: write a def", id="lambda"),
    pytest.param(nested(), "stands inside another function", id="nested"),
    pytest.param(Greeter("x").greet, "it is bound to an object: .* takes the object's key", id="method"),
    pytest.param(Greeter.classy, "it is bound to an object", id="class method"),
    pytest.param(Greeter.static, "it stands in a class", id="static method"),
    pytest.param(Greeter, "it is a class", id="class"),
    pytest.param(Greeter("x"), "Greeter .*it is an object that can be called", id="instance"),
    pytest.param(functools.partial(functions.note, "x"), "it is an object that can be called", id="partial"),
    pytest.param(print, "it is built in", id="builtin"),
    pytest.param(handler, "is a task handler: add it with its own add", id="task handler"),
    pytest.param(functions.loud, "another function than the one", id="decorated under another name"),
    pytest.param(5, "takes a function", id="number"),
    pytest.param(Path.exists, "it stands in a class", id="method of a class"),
    pytest.param(json.dumps, "it is not allowed: put @deferred.function above it, or .*json", id="not allowed"),
]


@pytest.mark.parametrize(("function", "why"), REFUSED)
async def test_defer_refuses_what_has_no_name_or_no_permission(stage: Stage, function: Any, why: str) -> None:
    async with stage.running(deferred_packages=PACKAGE):
        with pytest.raises(InvalidTaskError, match=why):
            deferred.defer(function)
    assert stage.task_count() == 0


@pytest.mark.parametrize("function", [lambda: None, nested(), Greeter("x").greet, Greeter, print])
def test_the_decorator_refuses_what_has_no_name(plain_stage: Stage, function: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot be deferred by its name: it"):
        plain_stage.router.deferred_function(function)


async def test_a_function_of_the_script_itself_is_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions.note, "__module__", "__main__")
    stage.router.deferred_function(functions.note)
    async with stage.running(deferred_pickle_key=b"k" * 32):
        with pytest.raises(InvalidTaskError, match="note stands in the script"):
            deferred.defer(functions.note, "x")


async def test_a_function_that_hides_behind_a_registered_name_is_refused(stage: Stage) -> None:
    stage.router.deferred_function(functions.quiet)
    async with stage.running():
        with pytest.raises(InvalidTaskError, match="another function"):
            deferred.defer(functions.loud, "x")


async def test_without_a_hookware_there_is_nothing_to_defer_to() -> None:
    gc.collect()  # instances that earlier tests made and never started
    with pytest.raises(ConfigurationError):
        deferred.defer(functions.note, "x")


async def run(stage: Stage, body: object, **options: Any) -> TaskInfo:
    """Deliver what somebody wrote into the table, and give the task, which is dead."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with stage.running(**options):
        await taskqueue.add_async(payload, url=URL, headers={"content-type": "application/json"})
        return await stage.dead()


def calling(function: object, **arguments: object) -> dict[str, object]:
    return {"function": function, "arguments": arguments}


@pytest.mark.parametrize(
    "name",
    [
        "os:getcwd",
        "shutil:rmtree",
        "builtins:print",
        "tests.deferring.functions:rmtree",
        "tests.deferring.functions:imported_from_elsewhere",
        "tests.deferring.functions:Greeter",
        "tests.deferring.functions:Greeter.static",
        "tests.deferring.functions:CALLS.clear",
        "tests.deferring.functions:__builtins__",
        "tests.deferring.functions:gone",
        "tests.deferring.gone:note",
        "tests.deferring_not:note",
        "tests.stage:Stage",
        "tests.deferring..functions:note",
        ".functions:note",
        "tests.deferring.functions",
        "tests.deferring.functions:note()",
        "note",
        "",
        ":",
        "é" * 1000,
    ],
)
async def test_a_stored_name_that_is_not_allowed_makes_the_task_dead(stage: Stage, calls: list[Any], name: str) -> None:
    calls.append("untouched")
    task = await run(stage, calling(name, what="x"), deferred_packages=PACKAGE)
    assert task.dead_reason == "permanent"
    assert name[:200] in str(task.last_error)
    assert calls == ["untouched"]


async def test_a_module_that_is_not_allowed_is_never_imported(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "never_imported.py").write_text("def work():\n    pass\n")
    for name in ("never_imported:work", "tests.deferring.functions:never_imported.work"):
        task = await run(stage, calling(name), deferred_packages=PACKAGE)
        stage.execute("DELETE FROM hookware_task")
        assert task.dead_reason == "permanent"
    assert "never_imported" not in sys.modules


async def test_a_module_of_an_allowed_package_is_imported_when_its_task_comes(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "late_tasks.py").write_text("CALLS = []\ndef work(n: int):\n    CALLS.append(n)\n")
    async with stage.running(deferred_packages=["late_tasks"]):
        await taskqueue.add_async(json.dumps(calling("late_tasks:work", n=3)), url=URL)
        await stage.settled()
    assert sys.modules.pop("late_tasks").CALLS == [3]
    assert stage.task_count() == 0


async def test_a_module_that_cannot_be_imported_for_another_reason_is_tried_again(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "unlucky_tasks.py").write_text("import no_such_library\n")
    once = taskqueue.TaskRetryOptions(task_retry_limit=0)
    async with stage.running(deferred_packages=["unlucky_tasks"]):
        await taskqueue.add_async(json.dumps(calling("unlucky_tasks:work")), url=URL, retry_options=once)
        task = await stage.dead()
    assert task.dead_reason == "retries"
    assert "no_such_library" in str(task.last_error)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"\x80\x05N.",
        {"function": "tests.deferring.functions:note"},
        calling(5),
        calling(None),
        calling("tests.deferring.functions:note"),
        calling("tests.deferring.functions:note", what=[1]),
        {"function": "tests.deferring.functions:note", "arguments": [1]},
        b"[" * 100_000,
        b'{"function":"tests.deferring.functions:note","arguments":' + b"[" * 100_000,
    ],
    ids=lambda body: f"{len(str(body))} characters {repr(body)[-50:]}",
)
async def test_a_body_that_defer_did_not_make_makes_the_task_dead(stage: Stage, calls: list[Any], body: Any) -> None:
    task = await run(stage, body, deferred_packages=PACKAGE)
    assert task.dead_reason == "permanent"
    assert calls == []


@pytest.mark.parametrize("packages", ["tests", ["tests.", "x"], [5], 5, [""], ["tests:deferring"]])
def test_packages_that_are_no_names_are_refused(plain_stage: Stage, packages: Any) -> None:
    with pytest.raises(ConfigurationError, match="deferred_packages= takes names of packages"):
        plain_stage.make(deferred_packages=packages)
