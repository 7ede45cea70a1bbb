"""How far tasks have come: what handlers say is kept in memory, and the latest of it written down twice a second.

Nothing depends on it, so nothing waits for it. What is said last may arrive after the attempt's end: only a newer
claim, or a person who calls the task off, makes it worthless.
"""

import threading

import anyio

from hookware.core.task import Lease, Progress
from hookware.env import Env, Wake
from hookware.errors import InvalidProgressError, TransientError
from hookware.events import Events
from hookware.health import Health
from hookware.store.base import Store
from hookware.supervisor import supervise

_MOST_CHARACTERS = 200
_LIMIT = 1e300
_PAUSE_SECONDS = 0.5
_LONG_SECONDS = 3600.0


def checked_progress(done: object, total: object, note: object) -> Progress:
    """Give what a handler says of its progress, if it makes sense."""
    if not isinstance(note, str):
        raise InvalidProgressError(f"note must be a text, got {note!r:.100}: write str(...) around it")
    total = None if total is None else _checked("total", total)
    clean = note[:_MOST_CHARACTERS].encode("utf-8", "replace").decode()
    return Progress(_checked("done", done), total, clean)


def _checked(name: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LIMIT:
        return value
    raise InvalidProgressError(
        f"{name} must be a finite number, got {value!r:.100}: count steps, bytes or a percentage"
    )


class ProgressLog:
    """Takes notes in any thread; `run` is the loop that writes them down."""

    def __init__(self, store: Store, env: Env, events: Events, health: Health) -> None:
        self._store, self._env, self._events, self._health = store, env, events, health
        self._lock = threading.Lock()
        self._notes: dict[Lease, Progress] = {}
        self._left_out: frozenset[Lease] = frozenset()
        self._news = Wake()
        self._scope = anyio.CancelScope()

    def note(self, lease: Lease, progress: Progress) -> None:
        """Keep the latest that the attempt under `lease` says."""
        with self._lock:
            first = not self._notes
            self._notes[lease] = progress
        if first:
            self._news.notify()

    async def run(self) -> None:
        """Write notes down until `stop()`."""
        with self._scope:
            await supervise("progress", self._write_forever, env=self._env, events=self._events, health=self._health)

    def stop(self) -> None:
        """Write nothing any more."""
        self._scope.cancel()

    async def _write_forever(self) -> None:
        while True:
            if not self._notes:
                await self._news.wait(_LONG_SECONDS)
            await self.write()
            await self._env.sleep(_PAUSE_SECONDS)

    async def write(self) -> None:
        """Write down what was said since the last time, in one transaction."""
        with self._lock:
            notes, self._notes = self._notes, {}
        if not notes:
            return
        try:
            written = await self._store.note_progress(notes)
        except TransientError:
            self._put_back(notes)  # others write, and go first
            return
        except BaseException:
            self._put_back(notes)
            raise
        self._health.worked("progress")
        # One whose row was locked just then has another try; one that is gone has it in vain.
        missing = {lease: said for lease, said in notes.items() if lease.task_id not in written}
        again = {lease: said for lease, said in missing.items() if lease not in self._left_out}
        self._left_out = frozenset(again)
        self._put_back(again)

    def _put_back(self, notes: dict[Lease, Progress]) -> None:
        with self._lock:
            self._notes = notes | self._notes
