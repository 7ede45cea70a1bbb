"""A process that fires what is due in a database, and dies at a failpoint."""

import os
import signal

import anyio

from hookware.config import Config
from hookware.env import Env
from hookware.events import Events
from hookware.health import Health
from hookware.scheduler import Scheduler, planned
from hookware.store.sql.outbox import Outbox
from tests.cron.clockwork import entry

HOURLY = entry("/hourly", "every 1 hours synchronized")


class Killed(Env):
    """Ends this process where it is told to."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self._at = at

    def fp(self, name: str) -> None:
        if name == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


async def fire(url: str, at: str) -> None:
    """Fire what is due."""
    env = Killed(at)
    outbox = Outbox(url, env=env, config=Config(), events=Events())
    await outbox.prepare()
    await Scheduler(outbox, planned([HOURLY]), Health(env)).fire_due()
    await outbox.close()


def fire_and_die(url: str, at: str) -> None:
    """Fire what is due, in this process, unless a failpoint has a name that is given: then it dies there."""
    anyio.run(fire, url, at)
