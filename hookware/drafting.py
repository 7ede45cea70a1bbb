"""From a draft to the task that is stored: its id, the configured defaults, and its body through the codec."""

from hookware.config import Config
from hookware.core.task import NO_LINEAGE, Draft, Lineage, NewTask
from hookware.encoding import encoded
from hookware.env import Env
from hookware.errors import TaskTooLargeError


def task_of(draft: Draft, config: Config, env: Env, lineage: Lineage = NO_LINEAGE) -> NewTask:
    """Give a draft its id and the configured defaults, and its body the form in which it is stored.

    Raises:
        UnknownQueueError: the queue would have to be configured.
        TaskTooLargeError: the payload is over the configured limit.
    """
    config.known_queue(draft.queue_name)
    size = len(draft.body)
    if size > config.max_body_bytes:
        raise TaskTooLargeError(
            f"the payload has {size} bytes; the limit is {config.max_body_bytes}: store large data "
            "elsewhere, and send its key"
        )
    deadline_us = draft.deadline_us
    if deadline_us is None:
        deadline_us = int(config.dispatch_deadline_seconds * 1_000_000)
    task = NewTask(
        id=env.new_id(),
        queue_name=draft.queue_name,
        name=draft.name,
        method=draft.method,
        url=draft.url,
        headers=draft.headers,
        body=draft.body,
        eta_us=draft.eta_us,
        countdown_us=draft.countdown_us,
        retry=draft.retry,
        deadline_us=deadline_us,
        keys=draft.keys,
        tag=draft.tag,
        lineage=lineage,
    )
    return encoded(config.codec, task)
