"""Random sequences of session operations, and the model that says what must be in the database afterwards.

A sequence is data: a list of steps drawn from a seed. `Model` interprets it with lists only; the runners of
test_sequences.py interpret it with real sessions and connections. Both must agree on what was committed.
"""

import random
from dataclasses import dataclass, field

STEPS = ("add_task", "add_task", "add_row", "add_row", "select", "flush", "nest", "nest", "release", "undo",
         "undo_outer", "commit", "rollback", "close")  # fmt: skip


def draw(rng: random.Random, length: int) -> list[tuple[str, int]]:
    """Draw a sequence: names of steps, each with a number that the step may use to choose."""
    return [(rng.choice(STEPS), rng.randrange(1_000_000)) for _ in range(length)]


@dataclass
class Model:
    """Which keys are committed after each step; tasks and rows alike."""

    committed: set[str] = field(default_factory=set)
    frames: list[set[str]] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)
    reserved: set[str] = field(default_factory=set)
    unflushed: set[str] = field(default_factory=set)
    wrote: bool = False

    @property
    def depth(self) -> int:
        """How many savepoints are open."""
        return max(0, len(self.frames) - 1)

    def opens(self) -> None:
        """The session begins a transaction if it has none, and the tasks that wait become its own."""
        if not self.frames:
            self.frames, self.reserved, self.wrote = [set()], self.waiting, False
            self.waiting, self.unflushed = set(), set()

    def add_task(self, key: str) -> None:
        """A task joins the open transaction, or waits for one."""
        if self.frames:
            self.frames[-1].add(key)
            self.unflushed.add(key)
        else:
            self.waiting.add(key)

    def give_task(self, key: str) -> None:
        """A task is added to this very session, which begins a transaction if it has none."""
        self.opens()
        self.add_task(key)

    def add_row(self, key: str) -> None:
        self.opens()
        self.flush()
        self.frames[-1].add(key)
        self.wrote = True

    def flush(self) -> None:
        self.wrote = self.wrote or bool(self.unflushed)
        self.unflushed = set()

    def select(self) -> None:
        self.opens()
        self.flush()  # SQLAlchemy's autoflush

    def nest(self) -> None:
        self.opens()
        self.flush()
        self.frames.append(set())

    def release(self, level: int) -> None:
        """Savepoint `level` (1 is the outermost) and those inside it become part of what is around them."""
        self.flush()
        while len(self.frames) > level:
            inner = self.frames.pop()
            self.frames[-1] |= inner

    def undo(self, level: int) -> None:
        """Savepoint `level` and those inside it are gone."""
        for frame in self.frames[level:]:
            self.unflushed -= frame
        del self.frames[level:]

    def commit(self) -> None:
        self.opens()  # a commit without a transaction begins one, in SQLAlchemy
        for frame in (*self.frames, self.reserved):
            self.committed |= frame
        self.frames, self.reserved = [], set()

    def rollback(self) -> None:
        self.frames, self.reserved = [], set()

    def close(self) -> None:
        """What waited waits again if the session only read."""
        if self.frames and not self.wrote:
            self.waiting |= self.reserved
        self.rollback()

    def end_of_request(self, *, ok: bool) -> None:
        """The session is closed; what waits commits with the request if it succeeds."""
        self.close()
        if ok:
            self.committed |= self.waiting
        self.waiting = set()
