"""A listener wakes the dispatcher, notices a connection that only looks alive, and gets another one."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from hookware import listener
from hookware.config import Config
from hookware.env import Env, Wake
from hookware.events import Event, Events, LoopFailed
from hookware.health import Health
from hookware.listener import Listener
from hookware.store.notices import Heard
from tests.notices import FakeNotices, until


class QuickEnv(Env):
    """Pauses are noted, and hardly any."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await anyio.sleep(min(seconds, 0.001))


class Hearing:
    """A listener, what it hears, and what comes of it."""

    def __init__(self, *, poll_seconds: float = 1.0, ping_seconds: float | None = 3600.0) -> None:
        self.env = QuickEnv()
        self.notices = FakeNotices()
        self.wake = Wake()
        self.health = Health(self.env)
        self.failures: list[LoopFailed] = []
        events = Events()
        events.subscribe(self._note)
        self.listener = Listener(
            self.notices,
            self.wake,
            env=self.env,
            config=Config(poll_seconds=poll_seconds),
            events=events,
            health=self.health,
            ping_seconds=ping_seconds,
        )

    def _note(self, event: Event) -> None:
        if isinstance(event, LoopFailed):
            self.failures.append(event)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as loops:
            loops.start_soon(self.listener.run)
            yield
            await self.listener.stop()
        assert self.notices.open_count == 0

    async def woken(self) -> bool:
        """Say whether there is a notice for the dispatcher; takes it."""
        await anyio.wait_all_tasks_blocked()
        return await self.wake.wait(0)


@pytest.fixture
async def hearing() -> Hearing:
    return Hearing()


@pytest.fixture
def short_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "ECHO_SECONDS", 0.02)


async def test_it_wakes_for_tasks_of_others_and_not_for_its_own_echo(hearing: Hearing) -> None:
    async with hearing.running():
        await until(lambda: hearing.listener.hears)
        assert await hearing.woken()  # for what may have been missed before
        hearing.notices.ear.say(Heard.ECHO)
        assert not await hearing.woken()
        hearing.notices.ear.say(Heard.TASKS)
        assert await hearing.woken()


async def test_a_connection_is_proven_at_once_and_then_left_alone_while_it_hears(hearing: Hearing) -> None:
    async with hearing.running():
        await until(lambda: hearing.listener.hears)
        await anyio.wait_all_tasks_blocked()
        assert hearing.notices.ping_count == 1


async def test_a_quiet_connection_is_proven_again_and_again() -> None:
    hearing = Hearing(ping_seconds=0.001)
    async with hearing.running():
        await until(lambda: hearing.notices.ping_count > 5)
        assert len(hearing.notices.opened) == 1
        assert not hearing.failures


@pytest.mark.parametrize(("poll_seconds", "least", "most"), [(0.1, 4.5, 5.0), (1.0, 9.0, 10.0), (60.0, 54.0, 60.0)])
async def test_pings_are_as_rare_as_polls_allow(poll_seconds: float, least: float, most: float) -> None:
    hearing = Hearing(poll_seconds=poll_seconds, ping_seconds=None)
    async with hearing.running():
        await until(lambda: hearing.env.pauses)
    assert least - 0.1 <= hearing.env.pauses[0] <= most


async def test_a_connection_that_breaks_is_replaced_and_what_was_missed_is_looked_for(hearing: Hearing) -> None:
    async with hearing.running():
        await until(lambda: hearing.listener.hears)
        assert await hearing.woken()
        hearing.notices.ear.break_off(ConnectionError("cut off"))
        await until(lambda: len(hearing.notices.opened) == 2)
        await until(lambda: hearing.listener.hears)
        assert await hearing.woken()
        assert [str(failure.error) for failure in hearing.failures] == ["cut off"]
        assert hearing.notices.open_count == 1
        hearing.notices.ear.say(Heard.TASKS)
        assert await hearing.woken()


async def test_a_connection_that_cannot_be_made_is_tried_again_after_pauses(hearing: Hearing) -> None:
    async def refuse() -> None:
        raise ConnectionRefusedError("away")

    hearing.notices.before_open = refuse
    async with hearing.running():
        await until(lambda: len(hearing.failures) == 6)
        assert hearing.health.failing == ["listener"]
        pauses = [failure.delay_seconds for failure in hearing.failures]
        assert all(0.05 <= pause <= 2 for pause in pauses)
        assert pauses[5] >= 1
        hearing.notices.before_open = anyio.lowlevel.checkpoint
        await until(lambda: hearing.listener.hears)
        await until(lambda: hearing.health.ok)


@pytest.mark.usefixtures("short_echo")
async def test_a_connection_that_no_longer_carries_anything_is_replaced() -> None:
    hearing = Hearing(ping_seconds=0.001)
    async with hearing.running():
        await until(lambda: hearing.listener.hears)
        hearing.notices.echoes = False
        await until(lambda: hearing.failures)
        assert "no echo" in str(hearing.failures[0].error)
        assert not hearing.listener.hears
        hearing.notices.echoes = True
        await until(lambda: hearing.listener.hears)


@pytest.mark.usefixtures("short_echo")
async def test_where_listening_has_no_effect_it_says_so_once_and_hardly_tries_again(
    hearing: Hearing, caplog: pytest.LogCaptureFixture
) -> None:
    hearing.notices.echoes = False
    with caplog.at_level(logging.WARNING, "hookware"):
        async with hearing.running():
            await until(lambda: 600.0 in hearing.env.pauses)
            assert len(hearing.notices.opened) == 3
            await until(lambda: hearing.env.pauses.count(600.0) == 3)
            assert len(hearing.notices.opened) == 5
            hearing.notices.echoes = True
            await until(lambda: hearing.listener.hears)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "LISTEN has no effect here" in line
    assert "every 1.0 s" in line
    assert not hearing.failures


@pytest.mark.slow
async def test_an_event_loop_that_was_blocked_does_not_look_like_a_lost_connection(
    hearing: Hearing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "ECHO_SECONDS", 0.4)

    async def block_while_the_echo_comes() -> None:
        for _ in range(3):  # until the echo is waited for
            await anyio.lowlevel.checkpoint()
        deadline = hearing.env.monotonic() + 0.5
        while hearing.env.monotonic() < deadline:
            pass
        hearing.notices.ear.say(Heard.ECHO)

    async def ping() -> None:
        loops.start_soon(block_while_the_echo_comes)

    hearing.notices.ping = ping  # type: ignore[method-assign]  # the fault
    async with anyio.create_task_group() as loops, hearing.running():
        await until(lambda: hearing.listener.hears)
        assert len(hearing.notices.opened) == 1


async def test_it_stops_wherever_it_is(hearing: Hearing) -> None:
    opening = anyio.Event()

    async def hang() -> None:
        opening.set()
        await anyio.sleep_forever()

    hearing.notices.before_open = hang
    async with hearing.running():
        await opening.wait()
    await Hearing().listener.stop()
