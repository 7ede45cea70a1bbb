"""hookware's log: what a filter or handler of the application raises ends no loop, and fails no request."""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from hookware.core.task import LeasedTask


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger that never raises: a line that the application's logging refuses goes to stderr, with what it raised."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a line; what `logging.raiseExceptions` says of handlers holds for filters, too."""
        try:
            super().log(level, msg, *args, **{"stacklevel": 2, **kwargs})
        except Exception:  # noqa: BLE001 - whatever others have put into the process's logging
            if logging.raiseExceptions:
                with suppress(Exception):  # there may be no stderr
                    sys.stderr.write(f"hookware: a log line is lost: {msg}\n{traceback.format_exc()}")

    def process(self, msg: object, kwargs: MutableMapping[str, Any]) -> tuple[object, MutableMapping[str, Any]]:
        """Leave a line as it is."""
        return msg, kwargs


def fields_of(task: LeasedTask) -> dict[str, object]:
    """Give the fields that every line about an attempt carries, for `extra=`."""
    return {"task_id": task.id, "queue_name": task.queue_name, "attempt": task.attempt_count}


def log_of(name: str = "hookware") -> Log:
    """Give the log `name`."""
    return Log(logging.getLogger(name))
