"""Clients: orders of every kind, from several threads, to whichever process is up."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random

from verification.crash.evidence import Answers
from verification.crash.site import Process

_URLS = ("/own", "/own", "/joined", "/outside", "/failing")


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to come."""

    key: str
    url: str
    path: str
    end: str
    wait: float
    then: int
    pause: float
    countdown: float


def random_ask(key: str, random: Random, *, longest_wait: float = 0.4, longest_pause: float = 0.05) -> Ask:
    """Choose a request: most commit; one task in four takes a while; some bring a follow-up, fail first, or wait."""
    url = random.choice(_URLS)
    path, end = "/order", random.choice(("commit", "commit", "commit", "commit", "commit", "rollback", "error"))
    match random.randrange(6):
        case 0:
            path, end = "/order/alone", "commit"
        case 1:
            path = "/order/own"
    wait = random.uniform(0, longest_wait) if random.randrange(4) == 0 else 0
    then = random.randrange(3) if url in ("/own", "/failing") else 0
    countdown = random.uniform(0, 0.6) if random.randrange(6) == 0 else 0
    return Ask(key, url, path, end, wait, then, random.uniform(0, longest_pause), countdown)


class Clients:
    """Ask for orders and remember the answers."""

    def __init__(self, count: int = 4) -> None:
        self.answers = Answers()
        self._pool = ThreadPoolExecutor(count)

    def ask(self, process: Callable[[int], Process], asks: Sequence[Ask]) -> None:
        """Send all requests; returns when each is answered or has failed. `process` gives each one its server."""
        list(self._pool.map(self._one, (process(number) for number in range(len(asks))), asks))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _one(self, process: Process, ask: Ask) -> None:
        time.sleep(ask.pause)
        process.ready()
        status = process.order(
            ask.key, ask.url, path=ask.path, wait=ask.wait, then=ask.then, end=ask.end, countdown=ask.countdown
        )
        note(self.answers, ask, status)


def note(answers: Answers, ask: Ask, status: int | None) -> None:
    """Remember an answer."""
    answers.answered += status is not None
    if ask.path != "/order/alone":  # of which no row tells: its history does
        kept = answers.committed if ask.end == "commit" else answers.undone
        kept[ask.key] = status
