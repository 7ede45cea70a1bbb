"""hookware: durable background tasks for any ASGI app.

`taskqueue.add(url="/worker", params={"key": key})` inside a request is one row in the same database transaction as
the request's other writes. Once committed, it is delivered as an HTTP request into the same app, in process, again
and again until the app answers 2xx.

Read these files, in this order:
    taskqueue.py     ENQUEUE                   what a task is, and add()
    transaction.py   COMMIT                    which session the task joins
    dispatcher.py    CLAIM > DELIVER > SETTLE  the loop that tells the whole story
    delivery.py                                one attempt: a request into the app, and its outcome
    middleware.py                              Hookware: where it is all put together
    core/                                      the decisions, as pure functions
"""

from hookware import deferred, taskqueue
from hookware.context import TaskContext, async_request_session, inspector, request_session, require_task
from hookware.core.codec import Codec, TaskIdentity
from hookware.core.cron import CronEntry
from hookware.core.lifecycle import State
from hookware.core.queue import QueueSettings
from hookware.errors import Error, PermanentTaskFailure, SingularTaskFailure
from hookware.handlers import TaskHandler, TaskRouter, task_handler
from hookware.middleware import Hookware
from hookware.probes import livez, readyz
from hookware.scheduled import Cron, CronStatus, cron, cron_entries
from hookware.taskqueue import Queue, QueueStatistics, Task, TaskRetryOptions

__version__ = "0.1.0"

__all__ = [
    "Codec",
    "Cron",
    "CronEntry",
    "CronStatus",
    "Error",
    "Hookware",
    "PermanentTaskFailure",
    "Queue",
    "QueueSettings",
    "QueueStatistics",
    "SingularTaskFailure",
    "State",
    "Task",
    "TaskContext",
    "TaskHandler",
    "TaskIdentity",
    "TaskRetryOptions",
    "TaskRouter",
    "async_request_session",
    "cron",
    "cron_entries",
    "deferred",
    "inspector",
    "livez",
    "readyz",
    "request_session",
    "require_task",
    "task_handler",
    "taskqueue",
]
