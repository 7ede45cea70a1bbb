"""A question to the database that many ask is put once in a while, and nobody waits long for an answer."""

import threading
from functools import partial
from itertools import count

import anyio
import pytest

from hookware import asking
from hookware.asking import Asking
from tests.samples import SkippingEnv


async def test_many_that_ask_at_once_get_the_answer_of_one_question() -> None:
    question = Asking(partial(next, count(1)), SkippingEnv(), good_for_seconds=5)
    answers: list[int | None] = []

    async def ask() -> None:
        answers.append(await question.wait())

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(ask)
    assert answers == [1] * 20


async def test_an_answer_is_good_for_a_while_and_so_is_a_failure() -> None:
    env = SkippingEnv()
    outcomes: list[int | OSError] = [1, OSError("away"), 3]

    def ask() -> int:
        outcome = outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    question = Asking(ask, env, good_for_seconds=5)
    seen = []
    for _ in range(3):
        seen += [await question.wait(), await question.wait(), type(question.error)]
        env.skip(5)
    assert seen == [1, 1, type(None), None, None, OSError, 3, 3, type(None)]


async def test_one_that_hangs_makes_nobody_wait_and_takes_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PATIENCE_SECONDS", 0.05)
    go_on, hanging = threading.Event(), []

    def hang() -> int:
        hanging.append(threading.current_thread().name)
        go_on.wait(10)
        return 7

    question = Asking(hang, SkippingEnv(), good_for_seconds=5)
    with anyio.fail_after(5):
        assert [await question.wait() for _ in range(4)] == [None] * 4
        assert isinstance(question.error, TimeoutError)
        assert question.now() is None
        go_on.set()
        while question.answer is None:
            await anyio.lowlevel.checkpoint()
    assert (question.answer, len(hanging)) == (7, 1)


async def test_on_the_event_loop_the_latest_answer_comes_at_once_and_the_next_is_fetched() -> None:
    env, go_on, threads = SkippingEnv(), threading.Event(), []

    def ask() -> int:
        threads.append(threading.current_thread())
        go_on.wait(10)
        return len(threads)

    question = Asking(ask, env, good_for_seconds=5)
    with anyio.fail_after(5):
        assert question.now() is None
        go_on.set()
        while question.now() is None:
            await anyio.lowlevel.checkpoint()
        go_on.clear()
        env.skip(5)
        assert question.now() == 1
        go_on.set()
        while question.now() == 1:
            await anyio.lowlevel.checkpoint()
    assert threading.current_thread() not in threads


def test_without_an_event_loop_it_is_asked_in_the_thread_that_wants_to_know() -> None:
    question = Asking(lambda: threading.current_thread(), SkippingEnv(), good_for_seconds=5)
    assert question.now() is threading.current_thread()
