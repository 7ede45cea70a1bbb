"""Foreground first: in a process that serves users and runs tasks, users come first, and tasks go on all the same.

What makes a request wait is the task that runs when it comes, and every other one that begins before it is answered:
for the event loop, for Python's lock, and on SQLite for the write lock, for which requests wait asleep while tasks
pass it on among themselves. So while users are there, tasks begin one after another, in the gaps between requests;
where the event loop is late all the same, fewer run at once. When users are gone, all slots are the tasks' again.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from starlette.types import Message, Send

from hookware.config import Config
from hookware.env import Env, Wake

PRESENCE_SECONDS: Final = 5.0
"""How long after a request, and after its answer, users count as being there; where they are many, for shorter."""

LEAST_PRESENCE_SECONDS: Final = 0.5
"""How long they do so at the least."""

SILENCE_PART: Final = 10
"""Users are gone who are silent for so many times as long as they were lately between two requests."""

SILENCE_HALF_LIFE_SECONDS: Final = 1.0
"""In what time the longest of these silences is half forgotten."""

PATIENCE_SECONDS: Final = 1.0
"""How long an unanswered request keeps tasks waiting. One that takes longer waits itself, as a long poll does."""

HOLD_SECONDS: Final = 0.05
"""The longest time for which requests keep a task waiting, once before its claim and once before its begin."""

FRESH_SECONDS: Final = 0.01
"""How long a task has the process for itself, unless it ends before. After that it most likely waits for something."""

CLAIMED_AT_ONCE: Final = 4
"""How many tasks one claim may bring while users are there, where claims keep nobody from writing."""

PROBE_SECONDS: Final = 0.02
"""How long the probe sleeps; what it wakes up too late is the lag."""

WINDOW_SECONDS: Final = 0.25
"""Over how long the lag is averaged."""

FELT_SECONDS: Final = 0.010
"""A mean lag above this halves the number of tasks that may run at once: two threads that compute make it."""

CALM_SECONDS: Final = 0.003
"""A mean lag below this lets the number grow again: tasks that wait make less, one thread that computes makes more."""

GROWTH_SECONDS: Final = 1.0
"""How long it takes to grow by one."""


class Rule:
    """Says how many tasks may be claimed, and when the next may begin, from what it is told of requests and of lag.

    It has no clock: `now` is in seconds, of a clock that never steps.

    Args:
        concurrency: how many tasks may run at once when no user is there.
        claimed_at_once: how many may be claimed at once while users are there.

    Attributes:
        limit: how many may run at once while users are there; from 1 to `concurrency`.
    """

    def __init__(self, concurrency: int, claimed_at_once: int = 1) -> None:
        self.limit = concurrency
        self._concurrency, self._claimed_at_once = concurrency, claimed_at_once
        self._unanswered: dict[object, float] = {}
        self._seen_at = self._arrived_at = float("-inf")
        self._silence = PRESENCE_SECONDS  # the longest of late; how much longer it was does not matter
        self._gone_after = PRESENCE_SECONDS
        self._claimed: set[object] = set()
        self._to_begin: set[object] = set()
        self._fresh: object = None
        self._fresh_until = float("-inf")
        self._lags: list[float] = []
        self._limited_at = float("-inf")

    # What happens.

    def arrived(self, request: object, now: float) -> None:
        """Note that a user's request is there."""
        faded = self._silence * 0.5 ** ((now - self._arrived_at) / SILENCE_HALF_LIFE_SECONDS)
        self._silence = min(max(now - self._seen_at, faded), PRESENCE_SECONDS)
        self._gone_after = min(max(self._silence * SILENCE_PART, LEAST_PRESENCE_SECONDS), PRESENCE_SECONDS)
        self._unanswered[request] = self._seen_at = self._arrived_at = now

    def answered(self, request: object, now: float) -> None:
        """Note that its response has begun to leave, or that it has ended without one; once is enough."""
        if self._unanswered.pop(request, None) is not None:
            self._seen_at = now

    def claimed(self, task: object) -> None:
        """Note that a task is claimed, and is about to begin."""
        self._claimed.add(task)
        self._to_begin.add(task)

    def began(self, task: object, now: float) -> None:
        """Note that a claimed task begins: for a moment nothing else is to begin."""
        self._to_begin.discard(task)
        self._fresh, self._fresh_until = task, now + FRESH_SECONDS

    def ended(self, task: object) -> None:
        """Note that a task has given its slot back."""
        self._claimed.discard(task)
        self._to_begin.discard(task)
        if self._fresh == task:
            self._fresh = None

    def lagged(self, seconds: float, now: float) -> None:
        """Note by how much the event loop was late, and draw the conclusion once that was long enough."""
        self._lags.append(max(0.0, seconds))
        count, total = len(self._lags), sum(self._lags)
        if total + count * PROBE_SECONDS < WINDOW_SECONDS:
            return
        self._lags = []
        lag = total / count
        if lag > FELT_SECONDS:
            self.limit, self._limited_at = max(1, self.limit // 2), now
        elif lag < CALM_SECONDS and now - self._limited_at >= GROWTH_SECONDS:
            self.limit, self._limited_at = min(self._concurrency, self.limit + 1), now

    # What follows.

    def presence(self, now: float) -> float:
        """For how many more seconds users count as being there; 0 if they do not."""
        seconds = self._seen_at + self._gone_after - now
        return seconds if seconds > 0 else 0.0

    def matters(self, now: float) -> bool:
        """Say whether users and tasks are there at once: only then the lag is worth knowing."""
        return self.presence(now) > 0 and bool(self._claimed)

    def unanswered(self, now: float) -> int:
        """How many requests wait for their answer; those that do so for long are counted no more."""
        for request, arrived_at in list(self._unanswered.items()):
            if now - arrived_at < PATIENCE_SECONDS:
                break  # they stand in the order in which they came
            self._unanswered.pop(request, None)
        return len(self._unanswered)

    def room(self, running: int, now: float) -> int:
        """How many tasks may be claimed now, with so many running.

        Few at a time while users are there, and none before those have begun: they would wait for each other here,
        and not where another process could take them.
        """
        if self.presence(now) == 0:
            return max(0, self._concurrency - running)
        return max(0, min(self._claimed_at_once, self.limit - running))

    def most_to_come(self, now: float) -> int:
        """How many tasks may come at once that nobody claims; while users are there, those that wait count."""
        return max(0, self._claimed_at_once - len(self._to_begin)) if self.presence(now) else self._concurrency

    def pause(self, since: float, now: float, task: object = None) -> float:
        """How many seconds to wait before the next claim, or before a claimed `task` begins; then ask again.

        Never more than HOLD_SECONDS after `since`, when the waiting began, but for the moment that belongs to a task
        that has just begun.
        """
        if self.presence(now) == 0:
            return 0.0
        hold = since + HOLD_SECONDS - now if self.unanswered(now) else 0.0
        fresh = self._fresh_until - now if self._fresh not in (None, task) else 0.0
        others = FRESH_SECONDS if task is None and self._to_begin else 0.0
        return max(0.0, hold, fresh, others)


class Foreground:
    """Applies the rule in one process: knows its requests, measures its event loop, and lets tasks wait.

    With `foreground_first=False`, and where no requests are served, it changes nothing.

    Args:
        env: for the clock.
        config: says whether it is on, and how many slots there are.
        claims_alone: a claim keeps others from writing, as on SQLite: it is to be as short as it can be.
    """

    def __init__(self, env: Env, config: Config, *, claims_alone: bool = True) -> None:
        self._env = env
        self._on = config.foreground_first
        self._concurrency = config.concurrency
        self._rule = Rule(config.concurrency, 1 if claims_alone else CLAIMED_AT_ONCE)
        self._waiting: dict[Wake, None] = {}  # a set that keeps their order
        self._begin_to_probe = Wake()
        self._probes = False

    # Requests.

    @contextmanager
    def request(self, send: Send) -> Iterator[Send]:
        """Count a user's request until its response begins to leave; give the `send` to serve it with.

        Streams and server-sent events are answered by their first byte. Any event loop and thread may serve it.
        """
        if not self._on:
            yield send
            return
        request = object()

        async def noting_send(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                self._answered(request)

        self._rule.arrived(request, self._env.monotonic())
        self._probe_if_it_matters()
        try:
            yield noting_send
        finally:
            self._answered(request)

    def _answered(self, request: object) -> None:
        now = self._env.monotonic()
        self._rule.answered(request, now)
        if self._rule.unanswered(now) == 0:
            self._let_look_again()

    # Tasks.

    def room(self, running: int) -> int:
        """How many tasks may be claimed now, with so many running."""
        return self._rule.room(running, self._env.monotonic()) if self._on else self._concurrency - running

    def most_to_come(self) -> int:
        """How many tasks may come at once that nobody claims; from any thread."""
        return self._rule.most_to_come(self._env.monotonic()) if self._on else self._concurrency

    def presence(self) -> float:
        """In how many seconds there will be more room, because users are gone then; infinite if there are none."""
        seconds = self._rule.presence(self._env.monotonic()) if self._on else 0.0
        return seconds or float("inf")

    def must_wait(self, task: object) -> bool:
        """Say whether a claimed task would keep a user waiting if it began now."""
        now = self._env.monotonic()
        return self._on and self._rule.pause(now, now, task) > 0

    async def turn(self, task: object = None) -> None:
        """Wait until the next claim, or the begin of a claimed task, keeps no user waiting, but not for long."""
        if not self._on:
            return
        since = self._env.monotonic()
        while seconds := self._rule.pause(since, self._env.monotonic(), task):
            wake = Wake()
            self._waiting[wake] = None
            try:
                await wake.wait(seconds)
            finally:
                del self._waiting[wake]

    def claimed(self, tasks: Iterable[object]) -> None:
        """Note that tasks are claimed."""
        for task in tasks:
            self._rule.claimed(task)
        self._probe_if_it_matters()

    def began(self, task: object) -> None:
        """Note that a claimed task begins."""
        self._rule.began(task, self._env.monotonic())
        self._let_look_again()

    def ended(self, task: object) -> None:
        """Note that a task has given its slot back."""
        self._rule.ended(task)
        self._let_look_again()

    def _let_look_again(self) -> None:
        if self._waiting:
            for wake in list(self._waiting):
                wake.notify()

    # Lag.

    async def probe(self) -> None:
        """Measure how late the event loop is, whenever users and tasks are there at once; runs until cancelled."""
        try:
            while True:
                began = self._env.monotonic()
                self._probes = self._rule.matters(began)
                if self._probes:
                    await self._env.sleep(PROBE_SECONDS)
                    now = self._env.monotonic()
                    self._rule.lagged(now - began - PROBE_SECONDS, now)
                else:
                    await self._begin_to_probe.wait(float("inf"))
        finally:
            self._probes = False

    def _probe_if_it_matters(self) -> None:
        if not self._probes and self._rule.matters(self._env.monotonic()):
            self._probes = True
            self._begin_to_probe.notify()
