"""What a test lets go wrong: answers that are no success, and processes that die around a handler."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hookware.core.task import LeasedTask

Kind = Literal["fail", "crash"]


class PlannedError(Exception):
    """Goes wrong because a test has planned it."""


@dataclass(slots=True, kw_only=True)
class Fault:
    """What goes wrong with some attempts.

    Attributes:
        kind: "fail": the attempt fails; "crash": its process dies.
        after: after the handler has done its work, and before hookware has committed or stored anything of it.
        url, queue_name: of which tasks; None: of any.
        times: of how many attempts.
        status, headers: what is answered.
        error: what is raised instead of an answer.
    """

    kind: Kind
    after: bool
    url: str | None
    queue_name: str | None
    times: int
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    error: Exception | None = None

    def hits(self, task: LeasedTask) -> bool:
        """Say whether it is this task's turn."""
        return (
            self.times > 0
            and self.url in (None, task.url, task.url.partition("?")[0])
            and self.queue_name in (None, task.queue_name)
        )

    @property
    def exception(self) -> Exception:
        """What is raised where no answer can be given."""
        return self.error or PlannedError("a test has planned that this goes wrong")


class Faults:
    """Those that are planned, in the order in which they were."""

    def __init__(self) -> None:
        self._planned: list[Fault] = []

    def plan(self, fault: Fault) -> None:
        """Let something go wrong."""
        self._planned.append(fault)

    def take(self, task: LeasedTask) -> Fault | None:
        """Give what goes wrong with the attempt of `task` that begins now."""
        for fault in self._planned:
            if fault.hits(task):
                fault.times -= 1
                return fault
        return None

    def forget(self) -> None:
        """Plan nothing any more."""
        self._planned.clear()


class FaultyEntrance:
    """The app, where an attempt may meet a fault on its way in, or its answer on its way out.

    Attributes:
        fault: what goes wrong with the attempt that is under way.
        raised: what the app has raised in it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.fault: Fault | None = None
        self.raised: BaseException | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one delivery."""
        fault = self.fault if self.fault is not None and self.fault.kind == "fail" else None
        if fault is not None and not fault.after:
            await _answer(fault, send)
            return
        try:
            await self._app(scope, receive, send if fault is None else _replaced(fault, send))
        except BaseException as error:
            self.raised = error
            raise
        if fault is not None and fault.error is not None:
            raise fault.error

    def at_failpoint(self, name: str) -> None:
        """Let the attempt fail, or its process die, between the handler's end and the commit; or die around it."""
        fault = self.fault
        if fault is None:
            return
        if name == "commit.before" and fault.after:
            raise fault.exception
        if fault.kind == "crash" and name == ("dispatch.app.returned" if fault.after else "dispatch.start"):
            raise fault.exception


async def _answer(fault: Fault, send: Send) -> None:
    if fault.error is not None:
        raise fault.error
    await send(_start(fault))
    await send({"type": "http.response.body", "body": b"a test has planned this answer"})


def _replaced(fault: Fault, send: Send) -> Send:
    async def send_replaced(message: Message) -> None:
        await send(_start(fault) if message["type"] == "http.response.start" else message)

    return send_replaced


def _start(fault: Fault) -> Message:
    headers = [(name.lower().encode(), value.encode()) for name, value in fault.headers.items()]
    return {"type": "http.response.start", "status": fault.status, "headers": headers}
