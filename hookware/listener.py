"""Hears the notices of other processes, and makes sure that it does: a connection can be dead and look alive.

Nothing tells a process that its connection carries nothing any more, or that a pooler gave it to somebody else. So it
sends itself a ping, over another connection, and takes its own for lost when no echo comes. Meanwhile, and always, the
dispatcher polls: what is lost here is time, never a task.
"""

import anyio

from hookware.config import Config
from hookware.env import Env, Wake
from hookware.events import Events
from hookware.health import Health
from hookware.log import log_of
from hookware.store.notices import Heard, Notices
from hookware.supervisor import supervise

ECHO_SECONDS = 5.0
"""How long an echo may take."""

_LEAST_PING_SECONDS, _MOST_PING_SECONDS = 5.0, 60.0
_POLLS_PER_PING = 10
_DEAF_COUNT = 3
_DEAF_SECONDS = 600.0

_logger = log_of()


class Listener:
    """Wakes a dispatcher when another process has committed tasks.

    Args:
        notices: where they are heard.
        wake: what is notified; also when something may have been missed.
        env: clock and randomness.
        config: how often is polled, which says how often a ping is worth its cost.
        events: told when the connection is lost.
        health: told the same.
        ping_seconds: how long it may be quiet before a ping; by default ten polls, from 5 to 60 s.
    """

    def __init__(
        self,
        notices: Notices,
        wake: Wake,
        *,
        env: Env,
        config: Config,
        events: Events,
        health: Health | None = None,
        ping_seconds: float | None = None,
    ) -> None:
        self.health = health or Health(env)
        self._notices, self._wake, self._env, self._config, self._events = notices, wake, env, config, events
        usual = min(max(_POLLS_PER_PING * config.poll_seconds, _LEAST_PING_SECONDS), _MOST_PING_SECONDS)
        self._ping_seconds = usual * (0.9 + env.random() / 10) if ping_seconds is None else ping_seconds
        self._hears = False
        self._heard_at = 0.0
        self._echo = anyio.Event()
        self._deaf_count = 0
        # From the start to the end.
        self._scope = anyio.CancelScope()
        self._running = False
        self._ended = anyio.Event()

    @property
    def hears(self) -> bool:
        """Whether its connection has proven that it hears, and has not been found lost since."""
        return self._hears

    async def run(self) -> None:
        """Listen until `stop()`."""
        self._running = True
        try:
            with self._scope:
                await supervise("listener", self._listen, env=self._env, events=self._events, health=self.health)
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Close the connection."""
        self._scope.cancel()
        if self._running:
            await self._ended.wait()

    async def _listen(self) -> None:
        """Hear for ever; raise what tells that the connection is lost."""
        while True:
            try:
                await self._hear()
            except Exception as error:  # noqa: BLE001 - it is raised again
                lost = _first_leaf(error)
                had_heard, self._hears = self._hears, False
                if had_heard or not isinstance(lost, NoEchoError):
                    raise lost from None
            await self._note_deafness()

    async def _hear(self) -> None:
        async with self._notices.listening() as ear:
            self._wake.notify()  # what was sent before was not heard
            async with anyio.create_task_group() as group:
                group.start_soon(self._keep_proving)
                while True:
                    self._note(await ear.hear())

    def _note(self, heard: frozenset[Heard]) -> None:
        if Heard.TASKS in heard:
            self._wake.notify()
        if Heard.ECHO in heard:
            self._echo.set()
        self._heard_at = self._env.monotonic()
        self._hears, self._deaf_count = True, 0
        self.health.worked("listener")

    async def _keep_proving(self) -> None:
        while True:
            await self._prove()
            while (rest := self._heard_at + self._ping_seconds - self._env.monotonic()) > 0:
                await self._env.sleep(rest)

    async def _prove(self) -> None:
        self._echo = anyio.Event()
        await self._notices.ping()
        for _ in range(2):  # where the event loop was blocked, the echo may have come and not been read
            with anyio.move_on_after(ECHO_SECONDS / 2):
                return await self._echo.wait()
        raise NoEchoError(f"a ping over the LISTEN connection had no echo within {ECHO_SECONDS:.0f} s")

    async def _note_deafness(self) -> None:
        """Of a connection that has never heard anything, make a few more; if it is so with all, hardly try again."""
        self._deaf_count += 1
        if self._deaf_count == _DEAF_COUNT:
            _logger.warning(
                "LISTEN has no effect here, as behind a pooler in transaction mode: tasks that other processes add are "
                "found by asking, every %.1f s. Give Hookware a URL around the pooler, listen=..., or listen=False",
                self._config.poll_seconds,
            )
        if self._deaf_count >= _DEAF_COUNT:
            await self._env.sleep(_DEAF_SECONDS)


class NoEchoError(ConnectionError):
    """The connection looks alive, and carries nothing."""


def _first_leaf(error: Exception) -> Exception:
    return _first_leaf(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error
