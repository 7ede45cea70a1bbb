"""Who runs the tasks of one Hookware: its loops, from its lifespan's start to its end; or a test, in their place."""

import weakref
from collections.abc import Callable, Mapping
from inspect import ismethod
from typing import ClassVar, Protocol
from weakref import WeakSet

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import EventLoopToken, current_token
from starlette.types import ASGIApp

from hookware.delivery import Target
from hookware.foreground import Foreground
from hookware.processing import Processing, Storing
from hookware.scheduler import planned
from hookware.store.sql.outbox import Outbox


class Director(Protocol):
    """A test that decides when tasks run.

    Attributes:
        holds: the loops are not to run: it runs the tasks itself.
    """

    @property
    def holds(self) -> bool:
        """See `Director`."""
        ...

    def met(self, loops: "Loops") -> None:
        """Hear of an app that has been made, has started, or serves a request."""

    async def served(self, loops: "Loops") -> None:
        """Do what is to be done after a request, before whoever sent it may go on."""


class Loops:
    """The loops of one Hookware.

    Args:
        outbox: where its tasks are.
        foreground: knows its requests.
        owner: the Hookware: the app that its tasks go to, until a scope says better.

    Attributes:
        director: the test that decides; None, as ever but in tests: nobody does.
        made: those that there are.
        outbox: where the tasks are.
        processing: what runs now.
        state: the app's lifespan state.
        token: the event loop that they run in; None: no lifespan is running.
    """

    director: ClassVar[Director | None] = None
    made: ClassVar["WeakSet[Loops]"] = WeakSet()

    def __init__(self, outbox: Outbox, foreground: Foreground, owner: ASGIApp) -> None:
        self.outbox = outbox
        self._foreground = foreground
        # Both hold these: held in turn, none of them would go when nobody wants it any more.
        self._owner = self._entrance = _reference(owner)
        self.state: Mapping[str, object] = {}
        self.processing: Processing | Storing | None = None
        self.token: EventLoopToken | None = None
        self._group: TaskGroup | None = None
        self._target: Target | None = None
        self._changing = anyio.Lock()
        Loops.made.add(self)
        self._meet()

    @property
    def entrance(self) -> ASGIApp:
        """The app that tasks go to: the outermost that hookware knows of."""
        entrance = self._entrance() or self._owner()
        if entrance is None:
            raise RuntimeError("the app that the tasks would go to is gone")
        return entrance

    async def start(self, group: TaskGroup, target: Target) -> None:
        """Start them in the lifespan's task group."""
        self._entrance = _reference(target.app)
        self.state, self._group, self._target = target.state, group, target
        self.token = current_token()
        self._meet()
        await self._begin(group)

    async def change(self) -> None:
        """Run, or run no longer, as the director says now; without a lifespan there is nothing to do."""
        async with self._changing:
            group = self._group
            if group is None or isinstance(self.processing, Processing) == self._may_run():
                return
            await self.stop()
            await self._end()
            await self._begin(group)

    def change_soon(self) -> None:
        """Do so soon, on the loops' own thread."""
        if self._group is not None:
            self._group.start_soon(self.change)

    async def stop(self) -> None:
        """End them; nothing runs when this returns."""
        if self.processing is not None:
            await self.processing.stop()

    async def close(self) -> None:
        """Give back what they held."""
        self.token = self._group = None
        await self._end()
        self._target = None

    def enter_without_lifespan(self, entrance: ASGIApp) -> bool:
        """Note by which app a request came in, where no lifespan has; say whether somebody runs its tasks."""
        self._entrance = _reference(entrance)
        self._meet()
        return Loops.director is not None

    async def entered(self) -> None:
        """Let a test take over before a request adds tasks, where that can be waited for."""
        if Loops.director is not None and self.token is not None and self.token == current_token():
            await self.change()

    async def served(self) -> None:
        """Let a test do what is to be done after a request."""
        if Loops.director is not None:
            Loops.director.met(self)
            await Loops.director.served(self)

    def _meet(self) -> None:
        if Loops.director is not None:
            Loops.director.met(self)

    async def _begin(self, group: TaskGroup) -> None:
        if self._target is not None and self._may_run():
            plans = planned(self.outbox.cron_entries())
            self.processing = Processing(self.outbox, self._target, self._foreground, plans)
        else:
            self.processing = Storing(self.outbox)
        await self.processing.start(group)

    def _may_run(self) -> bool:
        is_held = Loops.director is not None and Loops.director.holds
        return self.outbox.config.dispatch and not is_held

    async def _end(self) -> None:
        processing, self.processing = self.processing, None
        if processing is not None:
            await processing.close()


def _reference(app: ASGIApp) -> Callable[[], ASGIApp | None]:
    """Give a way to an app that does not keep it, where there can be one: a bound method is gone at once."""
    try:
        return (lambda: app) if ismethod(app) else weakref.ref(app)
    except TypeError:
        return lambda: app
