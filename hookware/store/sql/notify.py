"""NOTIFY: how a process tells the others on its PostgreSQL of tasks, and what they hear.

A notice goes out in a transaction of hookware's own, after the commit that it tells of: within a user's it would make
all such commits of the database wait for each other.
"""

from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy import URL, Connection, Engine, text

from hookware.env import Env
from hookware.errors import ConfigurationError
from hookware.store.notices import Ear, Heard
from hookware.store.sql.ears import Listening, listening_of
from hookware.store.sql.engines import engine_of
from hookware.store.sql.own_runner import unpooled_engine
from hookware.store.sql.runner import Runner
from hookware.store.sql.times import STATEMENT_SECONDS

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

CHANNEL: Final = "hookware"
"""Where tasks are told of, by all who use the database: for those of another schema it is one look in vain."""

# A notice waits for one lock only, at its commit, for which the limit of a statement would come too late.
_NOTIFY = text(f"SELECT pg_notify(:channel, :sender), set_config('lock_timeout', '{STATEMENT_SECONDS}s', true)")


class PostgresNotices:
    """Notices by NOTIFY and LISTEN. A process is told apart by a random token, which names its channel for pings."""

    def __init__(self, runner: Runner, listening: Listening, env: Env) -> None:
        self._runner, self._listening, self._env = runner, listening, env
        self.start_over()

    def start_over(self) -> None:
        """Be another process than the one that this one was forked from."""
        self._token = self._env.new_token()

    async def send(self) -> None:
        """Tell the others that there may be tasks for them."""
        await self._runner.run(partial(self._notify, CHANNEL), write=False, single=True)

    def send_blocking(self) -> None:
        """Do the same in this thread."""
        self._runner.run_blocking(partial(self._notify, CHANNEL), write=False, single=True)

    async def ping(self) -> None:
        """Send this process's own ear an echo, over another connection."""
        await self._runner.run(partial(self._notify, self._own_channel), write=False, single=True)

    def listening(self) -> AbstractAsyncContextManager[Ear]:
        """Hold a connection that listens."""
        return self._listening((CHANNEL, self._own_channel), self._meaning)

    @property
    def _own_channel(self) -> str:
        return f"{CHANNEL}_{self._token}"

    def _notify(self, channel: str, connection: Connection) -> None:
        connection.execute(_NOTIFY, {"channel": channel, "sender": self._token})

    def _meaning(self, channel: str, sender: str) -> Heard | None:
        if channel != CHANNEL:
            return Heard.ECHO
        return None if sender == self._token else Heard.TASKS


def notices_of(
    user_engine: "Engine | AsyncEngine", runner: Runner, env: Env, listen: bool | URL | str
) -> PostgresNotices | None:
    """Give the notices of a database, sent by `runner` and heard where `listen` says; None: it has none.

    Raises:
        ConfigurationError: `listen` is neither a boolean nor the URL of a PostgreSQL.
    """
    engine = user_engine if isinstance(listen, bool) else engine_of(listen)
    if user_engine.dialect.name != "postgresql" and isinstance(listen, bool):
        return None
    if not user_engine.dialect.name == engine.dialect.name == "postgresql":
        raise ConfigurationError(
            f"listen={engine.url!r} must be True, False, or a URL of the very database that engine= goes to, and that "
            "must be a PostgreSQL: nothing else can be listened to"
        )
    return PostgresNotices(runner, listening_of(unpooled_engine(engine)), env)
