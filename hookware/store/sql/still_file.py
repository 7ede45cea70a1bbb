"""What a SQLite file has said of the next due task, for as long as nobody writes to it: then it need not be asked.

Every commit changes the file or its log, whichever process makes it. To see that nobody does takes two system calls.
"""

import os
from typing import Final, NamedTuple

from hookware.env import Env

STILL_SECONDS: Final = 0.1
"""How long a file must have been as it is before an answer counts: its times are not exact."""

MOST_SECONDS: Final = 10.0
"""After so long the database is asked all the same: a disk may hold a commit up whose pages it has."""

_Signature = tuple[tuple[int, int, int], ...]


class Look(NamedTuple):
    """How the file looked at a moment, and since when it has looked so, by `Env.monotonic`; and the time of then."""

    signature: _Signature
    at: float
    since: float
    now_us: int

    @property
    def is_still(self) -> bool:
        """Whether what is asked now holds until the file looks different."""
        return bool(self.signature) and self.at - self.since >= STILL_SECONDS


class Answer(NamedTuple):
    """What the database has said: when the next task is due, of queues not excluded; None: there is none."""

    look: Look
    exclude: frozenset[str]
    due_us: int | None

    def until_due_us(self, now_us: int) -> int | None:
        """Give the microseconds until then."""
        return None if self.due_us is None else max(0, self.due_us - now_us)


class StillFile:
    """Remembers the answer to `next_due` while the file is still.

    Args:
        path: the database; "": it cannot be looked at.
        env: for the clocks; SQLite's time is this host's.
    """

    def __init__(self, path: str, env: Env) -> None:
        path = os.path.realpath(path) if path else ""  # the log lies beside the file that a link leads to
        self._paths = (path, f"{path}-wal") if path else ()
        self._env = env
        self._last = Look((), 0.0, 0.0, 0)
        self._answer: Answer | None = None

    def look(self) -> Look:
        """Look at the file."""
        signature, now = self._signature(), self._env.monotonic()
        since = self._last.since if signature == self._last.signature else now
        self._last = Look(signature, now, since, self._env.now_us())
        return self._last

    def answer(self, look: Look, exclude: frozenset[str]) -> Answer | None:
        """Give the answer that still holds for these excluded queues; None: ask."""
        answer = self._answer
        if answer is None or (answer.look.signature, answer.exclude) != (look.signature, exclude):
            return None
        is_due = answer.until_due_us(look.now_us) == 0
        return None if is_due or look.at - answer.look.at >= MOST_SECONDS else answer

    def remember(self, look: Look, exclude: frozenset[str], until_due_us: int | None) -> None:
        """Keep what the database has answered after this look."""
        due_us = None if until_due_us is None else look.now_us + until_due_us
        self._answer = Answer(look, exclude, due_us) if look.is_still else None

    def _signature(self) -> _Signature:
        found: list[tuple[int, int, int]] = []
        for path in self._paths:
            try:
                seen = os.stat(path)
            except OSError:
                continue
            found.append((seen.st_ino, seen.st_size, seen.st_mtime_ns))
        return tuple(found)
