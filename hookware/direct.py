"""The short way of a task to its handler, where nothing of the app lies between: no request is made and taken apart."""

from functools import partial

from hookware.delivery import Call, Content, Serve
from hookware.exchange import serve_task
from hookware.handlers import TaskHandler, TaskRouter
from hookware.store.sql.outbox import Outbox
from hookware.unit_of_work import UnitOfWork


class DirectRoutes:
    """Finds the task handlers that take no request, and serves tasks with them.

    What comes of it is what comes of the whole way through `Hookware`: the same arguments, unit of work and answer.
    """

    def __init__(self, router: TaskRouter, outbox: Outbox) -> None:
        self._router, self._outbox = router, outbox
        self._known: dict[TaskHandler[..., object], Serve] = {}

    def find(self, path: str) -> Serve | None:
        """Give what serves a decoded path; None: it takes a request, or is no task handler's."""
        handler = self._router.find(path)
        if handler is None or handler.takes_request:
            return None
        if handler not in self._known:
            self._known[handler] = partial(self._serve, handler)
        return self._known[handler]

    async def _serve(self, handler: "TaskHandler[..., object]", call: Call, content: Content) -> None:
        unit = UnitOfWork(self._outbox, call.delivery)
        await serve_task(partial(handler.serve, call, content), call.answer, unit, call.delivery)
