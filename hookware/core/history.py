"""What is kept of a task's attempts, so that people can see later what happened: bounded, and without secrets."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from hookware.core.task import Headers

FIRST_KEPT: Final = 10
LAST_KEPT: Final = 10
"""Of more attempts than these together, the first and the last ones are kept: how it began, and how it is now."""

MAX_RESPONSE_BYTES: Final = 2000
"""How much is kept of a response's body."""

MAX_URL_CHARACTERS: Final = 2000
"""How much is kept of the URL that a task was delivered to; the task has all of it."""

_MOST_HEADERS: Final = 40
_MOST_NAME: Final = 100
_MOST_VALUE: Final = 300
_SECRET: Final = ("auth", "cookie", "token", "secret", "session", "passw", "credential", "signature", "api-key", "csrf")

AttemptOutcome = Literal["completed", "retry", "dead", "given back", "crashed"]
"""How an attempt ended: `crashed` is that of one whose process died, whatever became of the task."""

AttemptHistory = Literal["off", "failures", "all"]
"""Which attempts are kept: none; those that did not complete the task; or all."""

HISTORIES: Final[tuple[AttemptHistory, ...]] = ("off", "failures", "all")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One attempt at a task, as it was seen when it ended. Times are microseconds by the database's clock.

    Attributes:
        task_id: the task.
        number: which of its attempts it was, from 1. It goes on counting where a task is run again by hand, or given
            back, and `attempt_count` does not.
        attempt_count: which attempt the handler was told it was.
        fence: the fence of its lease.
        owner: the process that ran it; None where that is not known.
        method: of the request that it was delivered as.
        url: of that request: path and query, at most 2000 characters of them.
        began_us: when its handler was called; None where the process that called it has died.
        ended_us: when it ended; of a crash, when another process found out.
        outcome: how it ended.
        status: the status of its response; None: there was none.
        error: what went wrong, at most 4096 characters.
        response_headers: those of its response, in order, some of the longest cut short. What may hold a secret, such
            as `Set-Cookie` or `Authorization`, is left out, and never stored.
        response_text: the beginning of the body of its response, at most 2000 bytes of it.
        response_byte_count: how long that body was.
    """

    task_id: int
    number: int
    attempt_count: int
    fence: int
    owner: str | None
    method: str
    url: str
    began_us: int | None
    ended_us: int
    outcome: AttemptOutcome
    status: int | None = None
    error: str | None = None
    response_headers: Headers = ()
    response_text: str = ""
    response_byte_count: int = 0

    @property
    def duration_us(self) -> int | None:
        """How long its handler took; None where that is not known."""
        return None if self.began_us is None else max(0, self.ended_us - self.began_us)


def outcome_of(value: object) -> AttemptOutcome:
    """Give the outcome that is stored as a text; "crashed" for one that is none."""
    return next((outcome for outcome in get_args(AttemptOutcome) if outcome == value), "crashed")


def superseded(number: int) -> int | None:
    """Say which attempt is not kept any longer once the one with this number is; None: all are."""
    return number - LAST_KEPT if number > FIRST_KEPT + LAST_KEPT else None


def shown_headers(headers: Iterable[tuple[object, object]]) -> Headers:
    """Give the headers of a response as they are kept: bounded, as text, without those that may hold a secret."""
    shown: list[tuple[str, str]] = []
    for raw_name, raw_value in headers:
        if not isinstance(raw_name, bytes) or not isinstance(raw_value, bytes):
            continue  # no server would send it
        name = raw_name[:_MOST_NAME].decode("latin-1").lower()
        if not any(word in name for word in _SECRET):
            shown.append((name, raw_value[:_MOST_VALUE].decode("latin-1")))
        if len(shown) == _MOST_HEADERS:
            break
    return tuple(shown)
