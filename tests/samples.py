"""Values for the tests: tasks with everything filled in, and a clock that a test moves by hand."""

from hookware.core.retry import RetryOptions
from hookware.core.task import DEFAULT_DEADLINE_US, NO_KEYS, Headers, Keys, LeasedTask, NewTask
from hookware.env import Env


class SteppedEnv(Env):
    """An Env whose clocks stand still until the test moves them."""

    def __init__(self, now_us: int = 1_700_000_000_000_000) -> None:
        super().__init__()
        self._now_us = now_us
        self._began_us = now_us

    def now_us(self) -> int:
        return self._now_us

    def monotonic(self) -> float:
        return (self._now_us - self._began_us) / 1e6

    def advance(self, seconds: float) -> None:
        self._now_us += int(seconds * 1e6)


class SkippingEnv(Env):
    """The real world, of whose time a test may skip some: for whoever waits for a while without sleeping."""

    def __init__(self) -> None:
        super().__init__()
        self._skipped_seconds = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self._skipped_seconds

    def skip(self, seconds: float) -> None:
        self._skipped_seconds += seconds


def new_task(
    task_id: int,
    *,
    queue_name: str = "default",
    name: str | None = None,
    url: str = "/worker",
    body: bytes = b"",
    countdown_us: int = 0,
    retry: RetryOptions | None = None,
    deadline_us: int = DEFAULT_DEADLINE_US,
    keys: Keys = NO_KEYS,
) -> NewTask:
    """Give a task that is about to be added."""
    return NewTask(
        id=task_id,
        queue_name=queue_name,
        name=name,
        method="POST",
        url=url,
        headers=(),
        body=body,
        countdown_us=countdown_us,
        retry=retry,
        deadline_us=deadline_us,
        keys=keys,
    )


def leased_task(
    task_id: int = 7,
    *,
    url: str = "/worker",
    method: str = "POST",
    headers: Headers = (),
    body: bytes = b"",
    deadline_us: int = DEFAULT_DEADLINE_US,
) -> LeasedTask:
    """Give a task in its first attempt."""
    return LeasedTask(
        id=task_id,
        fence=1,
        queue_name="default",
        name=None,
        method=method,
        url=url,
        headers=headers,
        body=body,
        eta_us=0,
        attempt_count=1,
        crash_count=0,
        first_attempt_us=0,
        claimed_us=0,
        last_status=None,
        retry=None,
        deadline_us=deadline_us,
    )
