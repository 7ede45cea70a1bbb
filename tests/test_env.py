"""Ids that nobody gave before, and a wake-up that is heard from any thread."""

import os
import threading

import anyio
import anyio.to_thread
import pytest

from hookware.env import Env, Wake, in_event_loop, in_event_loop_or_its_thread


class StoppedEnv(Env):
    """An Env whose clock stands still."""

    def now_us(self) -> int:
        return 1_800_000_000_000_000


def test_ids_grow_and_fit_into_63_bits_even_if_the_clock_stands_still() -> None:
    env = StoppedEnv()
    ids = [env.new_id() for _ in range(10_000)]
    assert ids == sorted(set(ids))
    assert 0 < ids[0] <= ids[-1] < 2**63


def test_ids_of_two_processes_differ_although_their_clocks_agree() -> None:
    assert not {env.new_id() for env in [StoppedEnv()] * 100} & {env.new_id() for env in [StoppedEnv()] * 100}


def test_ids_are_unique_over_threads() -> None:
    env, ids = StoppedEnv(), list[int]()
    threads = [threading.Thread(target=lambda: ids.extend(env.new_id() for _ in range(2_000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 8_000


def test_a_forked_process_gives_other_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    env = StoppedEnv()
    node = env.new_id() & (2**22 - 1)
    monkeypatch.setattr(os, "getpid", lambda: -1)  # what a child would be told
    assert env.new_id() & (2**22 - 1) != node


async def test_a_notice_that_came_before_the_waiter_is_kept_as_one() -> None:
    wake = Wake()
    wake.notify()
    wake.notify()
    assert await wake.wait(5) is True
    assert await wake.wait(0) is False


async def test_a_notice_from_a_thread_wakes_the_waiter() -> None:
    wake = Wake()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(wake.wait, 60)
            await anyio.lowlevel.checkpoint()
            await anyio.to_thread.run_sync(wake.notify)


def test_a_notice_to_a_loop_that_has_ended_is_no_error() -> None:
    wake = Wake()
    anyio.run(wake.wait, 0)
    wake.notify()
    assert anyio.run(wake.wait, 5) is True


async def test_an_event_loop_is_told_from_its_threads() -> None:
    assert in_event_loop()
    assert in_event_loop_or_its_thread()
    assert await anyio.to_thread.run_sync(in_event_loop) is False
    assert await anyio.to_thread.run_sync(in_event_loop_or_its_thread) is True


def test_a_script_is_under_no_event_loop() -> None:
    assert not in_event_loop()


async def test_a_notice_that_comes_as_a_wait_ends_is_heard_by_the_next() -> None:
    class Raced(Wake):
        """Is notified, by another thread, right after the waiter has looked for the last time."""

        looks = 0
        is_pending = False

        @property
        def _pending(self) -> bool:
            seen, self.looks = self.is_pending, self.looks + 1
            self.is_pending = self.is_pending or self.looks == 2
            return seen

        @_pending.setter
        def _pending(self, value: bool) -> None:
            self.is_pending = value

    wake = Raced()
    assert await wake.wait(0) is False
    assert wake.looks == 2
    assert await wake.wait(0) is True
