"""How a command fails: one line on standard error, and an exit status that scripts can tell apart."""

from typing import Final

import click

from hookware.cli.text import plain
from hookware.core.filter import FilterError
from hookware.errors import (
    Error,
    InvalidQueueError,
    InvalidQueueModeError,
    InvalidScheduleError,
    InvalidTagError,
    InvalidTaskError,
    TaskAlreadyExistsError,
    TombstonedTaskError,
    UnknownCronEntryError,
    UnknownQueueError,
)

FAILED: Final = 1
USAGE: Final = 2
UNHEALTHY: Final = 3
NOTHING: Final = 4
"""The exit statuses besides 0."""

_STATUSES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (UnknownQueueError, NOTHING),
    (UnknownCronEntryError, NOTHING),
    (TaskAlreadyExistsError, FAILED),
    (TombstonedTaskError, FAILED),
    (InvalidTaskError, USAGE),
    (InvalidQueueError, USAGE),
    (InvalidQueueModeError, USAGE),
    (InvalidScheduleError, USAGE),
    (InvalidTagError, USAGE),
    (Error, FAILED),
)
"""The first that fits counts."""


class Failure(click.ClickException):
    """Ends the command with a line, "Error: ...", and a status."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(plain(message))
        self.exit_code = status  # type: ignore[misc]  # click says so itself, and has it typed as the class's


def failure_of(error: Exception) -> Failure | None:
    """Give the failure that an error is to people; None: it is none that anybody foresaw, and keeps its traceback."""
    match error:
        case FilterError():
            return Failure(f"the filter is refused: {error}", USAGE)
        case ImportError() if "pip install" in str(error):
            return Failure(str(error))
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), None)
    return None if status is None else Failure(" ".join(str(error).split()), status)
