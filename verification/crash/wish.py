"""What a client asks the app for."""

from typing import Any

from starlette.requests import Request

from hookware import TaskRetryOptions


class Wish:
    """One order.

    Attributes:
        key: the order's own.
        end: what becomes of the transaction: commit, rollback, error or undo.
        countdown: in how many seconds the task is due.
        status: the answer that makes hookware's own session end like that.
        task: the arguments of `taskqueue.add`.
    """

    def __init__(self, request: Request) -> None:
        asked = request.query_params
        self.key, self.end = asked["key"], asked["end"]
        self.countdown = float(asked.get("countdown", 0))
        self.status = 200 if self.end == "commit" else 409
        self.task: dict[str, Any] = {
            "url": asked["url"],
            "params": {"wait": asked["wait"], "then": asked["then"]},
            "countdown": self.countdown,
            "retry_options": TaskRetryOptions(max_backoff_seconds=0.5),
        }
