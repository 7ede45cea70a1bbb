"""What is done to a fleet and its PostgreSQL server, each fault in a thread of its own, all by one seed."""

import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from threading import Event, Lock, Thread

from verification.chaos.fleet import Fleet, repeat
from verification.crash.database import PostgresDatabase
from verification.crash.site import Process, Site

_SESSIONS_AT_ONCE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How often what happens, in seconds; None: never.

    Attributes:
        kill: SIGKILL of one process.
        restart: an immediate restart of the server.
        terminate: the end of some sessions.
        freeze: SIGSTOP of one process, for `freeze_seconds` and up to twice that.
        away: the server is stopped, for up to `away_seconds`.
    """

    kill: float | None = None
    restart: float | None = None
    terminate: float | None = None
    freeze: float | None = None
    freeze_seconds: float = 6.0
    away: float | None = None
    away_seconds: float = 60.0


class Faults:
    """Carries a plan out until it is told to stop.

    Attributes:
        counts: what was done how often.
        errors: what went wrong in doing it.
    """

    def __init__(self, site: Site, database: PostgresDatabase, fleet: Fleet, plan: Plan, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self._site, self._database, self._fleet, self._plan = site, database, fleet, plan
        self._stop = Event()
        self._server = Lock()  # who stops or starts the server
        self._processes = Lock()  # who replaces processes
        self._is_away = False
        steps: list[tuple[str, float | None, Callable[[Random], None]]] = [
            ("kill", plan.kill, self._kill),
            ("restart", plan.restart, self._restart),
            ("terminate", plan.terminate, self._terminate),
            ("freeze", plan.freeze, self._freeze),
            ("away", plan.away, self._take_away),
        ]
        self._threads = [
            Thread(target=self._carry_out, args=(every, Random(f"{seed} {name}"), step, name in ("kill", "restart")))
            for name, every, step in steps
            if every
        ]
        self._threads.append(Thread(target=self._carry_out, args=(0.02, Random(), lambda _random: self._tend(), True)))

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, with everything as it should be: the server up, and every place taken by a process that runs."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._tend()

    def _carry_out(self, every: float, random: Random, step: Callable[[Random], None], steady: bool) -> None:
        try:
            repeat(every, random, self._stop.is_set, lambda: step(random), steady=steady)
        except BaseException as error:  # noqa: BLE001 - it is told at the end
            self.errors.append(error)

    def _tend(self) -> None:
        with self._processes:
            self._fleet.tend()

    def _kill(self, random: Random) -> None:
        if self._is_away:
            return  # all would soon be dead, for nobody can start
        with self._processes:
            self._fleet.kill(random)
        self.counts["kills"] += 1

    def _freeze(self, random: Random) -> None:
        with self._processes:
            candidates = self._fleet.serving
            process = random.choice(candidates) if candidates else None
            if process is not None:
                process.signal(signal.SIGSTOP)
        if process is not None:
            self._stop.wait(random.uniform(1, 2) * self._plan.freeze_seconds)
            self._go_on(process)

    def _go_on(self, process: Process) -> None:
        if process.status is None:
            process.signal(signal.SIGCONT)
            self.counts["freezes"] += 1

    def _restart(self, _random: Random) -> None:
        with self._server:
            began = time.time()
            self._database.server.restart("immediate")
            self._site.note("disturbed", node="", t=began, until=time.time(), why="restart of PostgreSQL")
        self.counts["immediate restarts"] += 1

    def _terminate(self, random: Random) -> None:
        began = time.time()
        with self._server:
            count = self._database.throw_out(random.randint(1, _SESSIONS_AT_ONCE))
        self._site.note("disturbed", node="", t=began, until=time.time(), why="sessions terminated")
        self.counts["sessions terminated"] += count

    def _take_away(self, random: Random) -> None:
        with self._server:
            began = time.time()
            self._is_away = True
            self._database.server.stop("immediate" if random.randrange(2) else "fast")
            self._stop.wait(random.uniform(1, self._plan.away_seconds))
            self._database.server.start()
            self._is_away = False
            self._site.note("disturbed", node="", t=began, until=time.time(), why="PostgreSQL away")
        self.counts["outages"] += 1
        self.counts["seconds of outage"] += round(time.time() - began)
