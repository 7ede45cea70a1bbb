"""An event loop in which nothing is left to chance: virtual time, and a seed that chooses what runs next.

Every callback belongs to a node, by a context variable. A node can be frozen, which is what SIGSTOP does to a
process, and never thawed, which is what SIGKILL does: no `finally` runs.
"""

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any

NODE: ContextVar[str] = ContextVar("node")
WORLD = "world"
_STEP_SECONDS = 2e-5  # a callback takes time too: a spinning loop must not stop the clock
_SPIN_STEPS = 25_000  # half a second in which something is always ready to run


class DeadlockError(RuntimeError):
    """Nothing is ready, and no timer is left."""


class SimLoop(asyncio.BaseEventLoop):
    """A deterministic loop: the same seed and program give the same run.

    `on_spin` is told of a node that waits for something by turning in circles: it is always ready to run.
    """

    _scheduled: list[Any]  # of TimerHandle, whose private parts are needed
    _stopping: bool

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.step_count = 0
        self.on_spin: Callable[[str], None] = lambda _node: None
        self._rested_at = 0
        self._chance = Random(seed).random
        self._now = 0.0
        self._current = WORLD
        self._ready: list[Any] = []  # a list, of which any one is taken
        self._frozen: dict[str, list[asyncio.Handle]] = {}

    def time(self) -> float:
        """Give the virtual time."""
        return self._now

    def call_soon(  # type: ignore[override] # TypeVarTuple in typeshed only
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Let something run as one of the next."""
        handle = asyncio.Handle(callback, args, self, self._on_a_node(context))
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override] # TypeVarTuple in typeshed only
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Let something run at a time."""
        timer = asyncio.TimerHandle(when, callback, args, self, self._on_a_node(context))
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined] # private
        return timer

    def _on_a_node(self, context: Context | None) -> Context:
        """Whatever is begun in a fresh context belongs to the node that begins it."""
        context = copy_context() if context is None else context
        if NODE not in context:
            context.run(NODE.set, self._current)
        return context

    def on_node(self, node: str, coroutine: Coroutine[object, object, None]) -> "asyncio.Task[None]":
        """Begin a task that belongs to `node`."""
        return self.create_task(coroutine, context=context_of(node))

    def freeze(self, *nodes: str) -> None:
        """Let nothing of these nodes run until they are thawed."""
        for node in nodes:
            self._frozen.setdefault(node, [])

    def thaw(self, *nodes: str) -> None:
        """Let these nodes go on, with all that has become due meanwhile."""
        for node in nodes:
            self._ready.extend(self._frozen.pop(node, []))

    @property
    def frozen(self) -> list[str]:
        """The nodes that are frozen now."""
        return list(self._frozen)

    def is_frozen(self, node: str) -> bool:
        """Whether the node is frozen now."""
        return node in self._frozen

    def after(self, seconds: float, action: Callable[..., object], *args: object) -> None:
        """Do something later that no frozen node can hold up."""
        self.call_later(seconds, action, *args, context=context_of(WORLD))

    def _run_once(self) -> None:
        ready, scheduled, frozen, chance = self._ready, self._scheduled, self._frozen, self._chance
        while True:
            self._now += _STEP_SECONDS
            if scheduled and scheduled[0]._when <= self._now:
                self._make_due_ready()
            count = len(ready)
            if count == 0:
                if self._stopping:
                    return
                self._move_on()
                continue
            # Any of those that are ready may be next.
            which = int(chance() * count) if count > 1 else 0
            handle = ready[which]
            last = ready.pop()
            if which < count - 1:
                ready[which] = last
            if handle._cancelled:
                continue
            node = handle._context[NODE]
            if node in frozen:
                frozen[node].append(handle)
                continue
            self.step_count += 1
            if self.step_count - self._rested_at > _SPIN_STEPS:
                self._rested_at = self.step_count
                self.on_spin(node)
            self._current = node
            handle._run()
            self._current = WORLD
            if self._stopping:
                return

    def _make_due_ready(self) -> None:
        scheduled = self._scheduled
        while scheduled and scheduled[0]._when <= self._now:
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            if not timer._cancelled:
                self._ready.append(timer)

    def _move_on(self) -> None:
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not scheduled:
            raise DeadlockError(f"nothing is left to run at {self._now:.3f} s")
        self._rested_at = self.step_count
        self._now = max(self._now, scheduled[0]._when)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Leave cancelled timers where they are, until their time."""

    def _process_events(self, event_list: object) -> None:
        """There is no I/O."""

    def _write_to_self(self) -> None:
        """There is no selector to wake."""


def context_of(node: str) -> Context:
    """Give a fresh context that belongs to `node`."""
    context = Context()
    context.run(NODE.set, node)
    return context
