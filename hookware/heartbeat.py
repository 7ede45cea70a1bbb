"""Renews the leases of running tasks, from a thread of its own: a blocked event loop must not look dead.

The thread proves that the process is alive, not that a handler progresses: past its hard deadline a lease is
renewed no more. A lease that cannot be renewed is given up here before another process may take it.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from anyio import CapacityLimiter, to_thread

from hookware.config import Config
from hookware.core.task import Lease, LeasedTask
from hookware.env import Env, Ticker
from hookware.errors import TransientError
from hookware.health import Health
from hookware.log import fields_of, log_of
from hookware.store.base import Store

_BEATS_PER_LEASE = 4
_GOOD_FOR = 5 / 8
"""The part of a lease after which it is given up: two beats may fail, and what is left lets a handler end."""
_MOST_CHARACTERS = 300

_logger = log_of()


@dataclass(slots=True)
class _Held:
    lease: Lease
    renew_until: float
    renewed_at: float
    on_lost: Callable[[], None]
    is_ending: Callable[[], bool]
    task: LeasedTask | None = None
    rests: bool = False


class Heartbeat:
    """Keeps leases alive from `hold` to `drop`."""

    def __init__(self, store: Store, env: Env, config: Config, health: Health | None = None) -> None:
        self._store = store
        self._env = env
        self._health = health or Health(env)
        self._overrun_seconds = config.overrun_seconds
        self._lease_seconds = config.lease_seconds
        self._held: dict[Lease, _Held] = {}
        self._lock = threading.Lock()
        self._ticker: Ticker | None = None

    def start(self) -> None:
        """Begin to renew; once is enough."""
        if self._ticker is None:
            self._ticker = self._env.every(self._lease_seconds / _BEATS_PER_LEASE, self.beat, name="hookware heartbeat")

    def stop(self) -> None:
        """Renew nothing any more."""
        ticker, self._ticker = self._ticker, None
        if ticker is not None:
            ticker.stop()

    def hold(
        self,
        lease: Lease,
        deadline_monotonic: float,
        on_lost: Callable[[], None],
        *,
        is_ending: Callable[[], bool] = lambda: False,
        renewed_at: float | None = None,
        task: LeasedTask | None = None,
    ) -> None:
        """Renew `lease` from now until the attempt's deadline plus overrun.

        Args:
            lease: a lease just taken.
            deadline_monotonic: when the attempt must have ended, by `Env.monotonic`.
            on_lost: called once, from the heartbeat's thread, when the lease has gone to another attempt or can no
                longer be relied on.
            is_ending: says whether the attempt's own result is being stored, or has been: that its lease is gone says
                nothing then.
            renewed_at: when its claim or its latest renewal was sent, by `Env.monotonic`; None: just now.
            task: what is leased, for the log.
        """
        renew_until = deadline_monotonic + self._overrun_seconds
        renewed_at = self._env.monotonic() if renewed_at is None else renewed_at
        held = _Held(lease, renew_until, renewed_at, on_lost, is_ending, task)
        with self._lock:
            self._held[lease] = held

    async def rest(self, lease: Lease) -> None:
        """Renew a lease once for all the time that its attempt may take, and leave the task's row alone after that.

        For a handler whose transaction sees the database as it was at its begin: it cannot remove a row that has been
        renewed since. The price: if this process dies, others wait until the attempt's deadline.
        """
        with self._lock:
            held = self._held.get(lease)
        if held is None or held.rests:
            return
        seconds = held.renew_until - self._env.monotonic() + self._lease_seconds
        held.rests = True  # at once: no beat may come after it
        try:
            one = CapacityLimiter(1)  # others' threads must not hold it up
            kept = await to_thread.run_sync(self._store.renew, [lease], int(seconds * 1e6), limiter=one)
        except Exception as error:  # noqa: BLE001 - a store may raise anything; beats go on then
            text = "the lease of task %d could not be made longer: %r"
            _logger.warning(text, lease.task_id, error, extra=_fields([held]))
            kept = frozenset()
        held.rests = lease.task_id in kept
        if held.rests:
            held.renewed_at = held.renew_until

    def age(self, lease: Lease) -> float:
        """Give the seconds since what last set a lease was sent; infinite if it is not held here."""
        with self._lock:
            held = self._held.get(lease)
        return float("inf") if held is None else self._env.monotonic() - held.renewed_at

    def drop(self, lease: Lease) -> None:
        """Leave `lease` alone from now on."""
        with self._lock:
            self._held.pop(lease, None)

    def holds(self, lease: Lease) -> bool:
        """Say whether `lease` is kept alive here."""
        with self._lock:
            return lease in self._held

    def beat(self) -> None:
        """Renew all leases in one statement, and give up those that are lost."""
        began = self._env.monotonic()
        with self._lock:
            due = [held for held in self._held.values() if began < held.renew_until and not held.rests]
        try:
            renewed = self._renew([held.lease for held in due])
        except TransientError as error:
            # Others held the database's lock: nobody can have taken these tasks meanwhile either.
            self._health.failed("heartbeat", error)
            return
        if renewed is not None:
            self._health.worked("heartbeat")
            self._note(due, renewed, began)
        self._lose(self._old(), "they could not be renewed in time, so they run again")

    def _renew(self, leases: list[Lease]) -> frozenset[int] | None:
        """Give the ids of the leases that are still held; None if the store does not say."""
        if not leases:
            return frozenset()
        try:
            self._env.fp("heartbeat.renew")
            return self._store.renew(leases, int(self._lease_seconds * 1e6))
        except TransientError:
            raise
        except Exception as error:  # noqa: BLE001 - a store may raise anything; the lease's end decides
            self._health.failed("heartbeat", error)
            return None

    def _note(self, due: list[_Held], renewed: frozenset[int], began: float) -> None:
        taken: list[_Held] = []
        # A claim whose answer came very late may be of a task that this process has claimed again since.
        newest = {held.lease.task_id: held.lease.fence for held in sorted(due, key=lambda held: held.lease.fence)}
        for held in due:
            lease = held.lease
            # The fence of the transaction that stores the result decides: here it need not be known who was first.
            is_kept = lease.task_id in renewed and lease.fence == newest[lease.task_id]
            if is_kept or held.is_ending():
                held.renewed_at, held.rests = began, False
            else:
                taken.append(held)
        self._lose(taken, "they were cancelled, or other attempts have them")

    def _old(self) -> list[_Held]:
        now = self._env.monotonic()
        with self._lock:
            held_now = list(self._held.values())
        return [held for held in held_now if now - held.renewed_at > self._lease_seconds * _GOOD_FOR]

    def _lose(self, those: list[_Held], why: str) -> None:
        """Give leases up, with one line for all of them; those whose attempt has ended by itself are not lost."""
        with self._lock:
            lost = [held for held in those if self._held.get(held.lease) is held]
            for held in lost:
                del self._held[held.lease]
        if lost:
            ids = ", ".join(str(held.lease.task_id) for held in lost)
            _logger.warning("lost the leases of tasks %s: %s", ids[:_MOST_CHARACTERS], why, extra=_fields(lost))
        for held in lost:
            try:
                held.on_lost()
            except Exception:
                _logger.exception("what follows a lost lease failed")


def _fields(those: list[_Held]) -> dict[str, object]:
    """Give the fields of a line about one task, or about several, of which each field has a list then."""
    each: list[dict[str, object]] = [
        {"task_id": held.lease.task_id} if held.task is None else fields_of(held.task) for held in those
    ]
    return each[0] if len(each) == 1 else {name: [one.get(name) for one in each] for name in each[0]}
