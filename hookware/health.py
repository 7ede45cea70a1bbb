"""Whether the loops of a process are well, and a log that says so without flooding.

A database that is away makes every loop fail, again and again. In the log that is one trouble: it begins, it goes on,
it is over, and there is never more than one line in ten seconds.
"""

import logging
import threading
from typing import NamedTuple

from hookware.env import Env
from hookware.errors import TransientError, describe
from hookware.events import one_line
from hookware.log import log_of

_QUIET_SECONDS = 10.0
_LONGEST_QUIET_SECONDS = 300.0
_FORGOTTEN_SECONDS = 30.0

_logger = log_of()


class _Line(NamedTuple):
    level: int
    text: str
    error: BaseException | None = None


class Health:
    """Knows which loops fail. One for all loops of a process; usable from any thread.

    A loop is well again when it says that it `worked`, or has not failed for half a minute.
    """

    def __init__(self, env: Env) -> None:
        self._env = env
        self._lock = threading.Lock()
        self._failed_at: dict[str, float] = {}
        self._trouble: _Trouble | None = None
        self._said_at = float("-inf")

    @property
    def ok(self) -> bool:
        """Whether every loop is well."""
        return not self.failing

    @property
    def failing(self) -> list[str]:
        """The names of the loops that are not well."""
        with self._lock:
            self._forget(self._env.monotonic())
            return list(self._failed_at)

    def failed(self, loop: str, error: BaseException) -> None:
        """Note that `loop` has failed and will try again; say so, unless something was said a moment ago."""
        with self._lock:
            now = self._env.monotonic()
            self._failed_at[loop] = now
            trouble = self._trouble = self._trouble or _Trouble(now)
            trouble.note(loop, error, now)
            line = None
            if now - self._said_at >= trouble.quiet_seconds:
                self._said_at = now
                line = trouble.tell(list(self._failed_at), now)
        _log(line)

    def worked(self, loop: str) -> None:
        """Note that `loop` does its work; say so, once nothing fails any more and a moment ago nothing was said."""
        if self._trouble is None:
            return
        with self._lock:
            line = self._note_success(loop, self._env.monotonic())
        _log(line)

    def _note_success(self, loop: str, now: float) -> _Line | None:
        trouble = self._trouble
        if trouble is None:
            return None
        if self._failed_at.pop(loop, None) is not None:
            trouble.until = now
        self._forget(now)
        if self._failed_at or now - self._said_at < _QUIET_SECONDS:
            return None
        self._said_at, self._trouble = now, None
        return trouble.tell_the_end()

    def _forget(self, now: float) -> None:
        for loop, failed_at in list(self._failed_at.items()):
            if now - failed_at >= _FORGOTTEN_SECONDS:
                del self._failed_at[loop]


class _Trouble:
    """Everything between the first failure and the moment when nothing fails any more."""

    def __init__(self, now: float) -> None:
        self.since = self.until = now
        self._try_count = 0
        self._line_count = 0
        self._cause = ""
        self._unexplained: BaseException | None = None
        self._traced: set[tuple[str, type]] = set()

    def note(self, loop: str, error: BaseException, now: float) -> None:
        self.until = now
        self._try_count += 1
        self._cause = _cause(error)
        kind = (loop, type(error))
        if not _speaks_for_itself(error) and kind not in self._traced:
            self._traced.add(kind)
            self._unexplained = error

    @property
    def quiet_seconds(self) -> float:
        """How long to say nothing after a line: the longer, the longer it lasts; news cut it short."""
        if self._unexplained is not None:
            return _QUIET_SECONDS
        return float(min(_QUIET_SECONDS * 2 ** max(0, self._line_count - 1), _LONGEST_QUIET_SECONDS))

    def tell(self, loops: list[str], now: float) -> _Line:
        error, self._unexplained = self._unexplained, None
        cause = self._cause if error is None else _cause(error)
        names = ", ".join(sorted(loops))
        self._line_count += 1
        if self._line_count == 1:
            return _Line(logging.ERROR, f"{names} failed, and tries again until it works: {cause}", error)
        lasts = f"{now - self.since:.0f} s and {self._try_count} tries"
        return _Line(logging.ERROR, f"still failing after {lasts} ({names}): {cause}", error)

    def tell_the_end(self) -> _Line:
        text = f"all works again, after {self.until - self.since:.1f} s and {self._try_count} failed tries"
        if self._line_count == 0:
            text += f", of which the last said: {self._cause}"
        return _Line(logging.WARNING, text, self._unexplained)


def _speaks_for_itself(error: BaseException) -> bool:
    """Say whether a traceback would only lead into a database's driver or the network."""
    return isinstance(error, OSError | TransientError) or hasattr(error, "orig") or hasattr(error, "sqlstate")


def _cause(error: BaseException) -> str:
    # SQLAlchemy's own text would add the statement and a link.
    return one_line(describe(getattr(error, "orig", None) or error))


def _log(line: _Line | None) -> None:
    if line is not None:
        _logger.log(line.level, "%s", line.text, exc_info=line.error)
