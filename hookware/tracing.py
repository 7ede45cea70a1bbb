"""What a tracing library is told, and what it adds to a task and to its delivery; hookware itself knows none."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from hookware.core.lifecycle import Outcome
from hookware.core.task import Headers, LeasedTask, NewTask


class Trace(Protocol):
    """The trace of one call of the app."""

    @property
    def headers(self) -> Headers:
        """The headers of the request: the task's own, with the trace."""
        ...

    def entered(self) -> AbstractContextManager[object]:
        """Give what is entered around the app in the request's own context."""
        ...

    def end(self, outcome: Outcome, error: BaseException | None) -> None:
        """Note how it went; it must not raise."""
        ...


class Tracing(Protocol):
    """Follows tasks from where they are added to where they run. Nothing here may raise."""

    def added(self, tasks: Sequence[NewTask]) -> Sequence[NewTask]:
        """Give tasks of one call and queue, as they are to be stored: with the trace in their headers."""
        ...

    def begin(self, task: LeasedTask) -> Trace:
        """Begin the trace of a call of the app."""
        ...
