"""Processes side by side, each replaced at once when it is gone; and clients that ask all of them for orders."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from threading import Event, Thread
from typing import Any

from verification.chaos.nursery import Nursery
from verification.crash.evidence import Answers
from verification.crash.load import Ask, note, random_ask
from verification.crash.site import Process, Site, wait_until

_CLOCK_ERRORS = (0.0, 3600.0, -3600.0, 120.0, -1.0)
_PAUSE_AFTER_FAILED_START = 2.0
_START_SECONDS = 100.0
_PLAIN: dict[str, Any] = {"url": "/own", "path": "/order", "end": "commit", "wait": 0, "then": 0, "countdown": 0}


@dataclass(slots=True)
class Place:
    """A place in the fleet.

    Attributes:
        dispatches: whether the processes in it run tasks; all take orders.
        clock_error: by how many seconds their clocks are wrong.
        process: who has it now.
        served: whether that one has ever served.
    """

    dispatches: bool
    clock_error: float
    process: Process
    served: bool = False
    wait_until: float = 0.0


@dataclass(slots=True)
class FleetFigures:
    """What became of the processes.

    Attributes:
        starts: processes started.
        failed_starts: those that ended before they served, killed by nobody: the database was away.
        ended: those that served and ended by themselves. There should be none.
        serving: how many were serving, whenever somebody looked.
    """

    starts: int = 0
    failed_starts: int = 0
    ended: list[str] = field(default_factory=list)
    serving: list[int] = field(default_factory=list)


class Fleet:
    """Processes on one site; of `spared` nobody is killed: the last places of all."""

    def __init__(
        self, site: Site, *, web: int, both: int, wrong_clocks: bool, options: dict[str, Any], spared: int = 0
    ) -> None:
        self.figures = FleetFigures()
        self._spared = spared
        self._site, self._options = site, options
        self._nursery = Nursery()
        self.places = [
            self._place(number >= web, _CLOCK_ERRORS[number % len(_CLOCK_ERRORS)] if wrong_clocks else 0.0)
            for number in range(web + both)
        ]

    @property
    def serving(self) -> list[Process]:
        """Those that answer requests now."""
        return [place.process for place in self.places if place.process.serves]

    def wait_until_serving(self) -> None:
        """Wait for the first process: before it there are no tables."""
        wait_until(lambda: self.serving, seconds=_START_SECONDS, what="a process serves")

    def tend(self) -> None:
        """Replace those that are gone."""
        for place in self.places:
            place.served = place.served or place.process.serves
            if place.process.status is not None and time.monotonic() >= place.wait_until:
                self._replace(place)
        self.figures.serving.append(len(self.serving))

    def kill(self, random: Random) -> None:
        """Pull the plug of one process, and start another one in its place."""
        place = random.choice(self.places[: len(self.places) - self._spared])
        if place.process.status is None:
            place.process.kill()
            self._start(place)

    def close(self) -> None:
        """Start no more."""
        self._nursery.close()

    def _replace(self, place: Place) -> None:
        if place.served:
            self.figures.ended.append(place.process.log[-2000:])
        else:
            self.figures.failed_starts += 1
        self._start(place)
        place.wait_until = time.monotonic() + _PAUSE_AFTER_FAILED_START

    def _start(self, place: Place) -> None:
        place.served = False
        place.process = self._launch(place.dispatches, place.clock_error)

    def _place(self, dispatches: bool, clock_error: float) -> Place:
        return Place(dispatches, clock_error, self._launch(dispatches, clock_error))

    def _launch(self, dispatches: bool, clock_error: float) -> Process:
        self.figures.starts += 1
        variables = {"CRASH_NODE": f"p{self.figures.starts}", "CRASH_CLOCK": str(clock_error)}
        return self._site.launch(spawn=self._nursery.spawn, variables=variables, dispatch=dispatches, **self._options)


class Load:
    """Clients that go on asking until they are told to stop, or have asked often enough.

    What they ask for is of every kind; `plain`: always a task that is due now and has one effect in the database.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        seed: int,
        per_second: float,
        orders: int | None,
        clients: int = 8,
        plain: bool = False,
    ) -> None:
        self.answers = Answers()
        self.asked = 0
        self._fleet, self._seed, self._plain = fleet, seed, plain
        self._pause = clients / per_second
        self._shares = [None if orders is None else (orders + n) // clients for n in range(clients)]
        self._stop = Event()
        self._threads = [Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    @property
    def is_over(self) -> bool:
        """Whether all have asked as often as they were to."""
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Ask no more; what is asked is waited for."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, client: int) -> None:
        random, number, share = Random(f"{self._seed} {client}"), 0, self._shares[client]
        due = time.monotonic()
        while not self._stop.is_set() and (share is None or number < share):
            process = self._choose(random)
            if process is None:
                self._stop.wait(0.05)
                continue
            due = max(due + random.uniform(0, 2 * self._pause), time.monotonic() - 1)
            self._stop.wait(due - time.monotonic())
            ask = random_ask(f"order {client} {number}", random, longest_pause=0)
            self._send(process, replace(ask, **_PLAIN) if self._plain else ask)
            number += 1

    def _choose(self, random: Random) -> Process | None:
        serving = self._fleet.serving
        return random.choice(serving) if serving else None

    def _send(self, process: Process, ask: Ask) -> None:
        status = process.order(
            ask.key, ask.url, path=ask.path, wait=ask.wait, then=ask.then, end=ask.end, countdown=ask.countdown
        )
        self.asked += 1
        note(self.answers, ask, status)


def repeat(every: float, random: Random, until: Callable[[], bool], step: Callable[[], None], *, steady: bool) -> None:
    """Take a step every so many seconds, or about that often, until it is time to end."""
    due = time.monotonic()
    while True:
        due = max(due + (every if steady else random.expovariate(1 / every)), time.monotonic())
        while time.monotonic() < due:
            if until():
                return
            time.sleep(min(0.05, max(0, due - time.monotonic())))
        step()
