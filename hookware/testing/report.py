"""What has run, told to a test."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hookware.core.lifecycle import Complete, Die, Release, Retry
from hookware.core.task import LeasedTask
from hookware.events import AttemptSettled

End = Literal["ok", "retry", "dead", "crash", "released", "refused"]


class HandlerFailedError(AssertionError):
    """An attempt failed that no test had planned to fail; the handler's own exception is its cause."""


class EndlessTasksError(AssertionError):
    """Tasks did not come to an end: each attempt leads to another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One attempt.

    Attributes:
        task: the task, as it was claimed.
        end: "ok": it is done; "retry": it waits for the next attempt; "dead": it was given up; "crash": its process
            died; "released": it was given back, uncounted; "refused": it had been cancelled or deleted.
        status: the status that was answered, if the attempt failed with one.
        error: why it failed.
        exception: what the app has raised.
        planned: a test had planned that it goes wrong.
    """

    task: LeasedTask
    end: End
    status: int | None = None
    error: str = ""
    exception: BaseException | None = None
    planned: bool = False

    @property
    def failed_by_itself(self) -> bool:
        """Whether something went wrong that nobody had planned."""
        return self.end in ("retry", "dead", "crash") and not self.planned

    def raise_failure(self) -> None:
        """Raise HandlerFailedError if the attempt failed and no test had planned it."""
        __tracebackhide__ = True
        if self.failed_by_itself:
            task = self.task
            raise HandlerFailedError(
                f"attempt {task.attempt_count} of task {task.label} ({task.method} {task.url}) failed: {self.error}. "
                "If that is meant: raise_errors=False"
            ) from self.exception


def ran_of(task: LeasedTask, event: AttemptSettled | None, exception: BaseException | None, *, planned: bool) -> Ran:
    """Say what became of an attempt; `event` None: its process died, as far as anybody knows."""
    if event is None:
        return Ran(task=task, end="crash", error="the process died", exception=exception, planned=planned)
    if event.accepted is False:
        return Ran(task=task, end="refused", exception=exception, planned=planned)
    match event.decision:
        case Complete():
            return Ran(task=task, end="ok", planned=planned)
        case Release():
            return Ran(task=task, end="released", planned=planned)
        case Retry(status=status, error=error):
            end: End = "retry"
        case Die(status=status, error=error):
            end = "dead"
    return Ran(task=task, end=end, status=status, error=error, exception=exception, planned=planned)


@dataclass(frozen=True, slots=True)
class Report:
    """What has run, in order.

    Attributes:
        attempts: the attempts.
        died: how many tasks were given up because processes died too often under them.
    """

    attempts: tuple[Ran, ...]
    died: int = 0

    def __len__(self) -> int:
        """How many attempts there were."""
        return len(self.attempts)

    @property
    def ok(self) -> int:
        """How many tasks were completed."""
        return self._count("ok")

    @property
    def retried(self) -> int:
        """How many attempts failed, and were to be tried again."""
        return self._count("retry")

    @property
    def dead(self) -> int:
        """How many tasks were given up."""
        return self._count("dead") + self.died

    @property
    def crashed(self) -> int:
        """How many attempts ended with their process."""
        return self._count("crash")

    @property
    def urls(self) -> list[str]:
        """The URLs that were called, in order."""
        return [each.task.url for each in self.attempts]

    def _count(self, end: End) -> int:
        return sum(each.end == end for each in self.attempts)


def joined(reports: Iterable[Report]) -> Report:
    """Give several as one."""
    several = list(reports)
    return Report(tuple(ran for each in several for ran in each.attempts), sum(each.died for each in several))
