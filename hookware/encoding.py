"""A task's body on its way through the codec: into its row, and out of it again.

The row says by a header that no task can set which codec made it: nothing is guessed from the body itself.
"""

from dataclasses import replace

from hookware.core.codec import CODEC_HEADER, Codec, TaskIdentity
from hookware.core.task import LeasedTask, NewTask
from hookware.errors import ConfigurationError, Error


def encoded(codec: Codec | None, task: NewTask) -> NewTask:
    """Give a task as it is stored. An empty body stays empty: there is nothing to hide.

    Raises:
        ConfigurationError: the codec gave something else than bytes.
    """
    if codec is None or not task.body:
        return task
    body = codec.encode(task.body, _identity(task))
    if not isinstance(body, bytes):
        raise ConfigurationError(f"the codec {codec.name!r} gave {type(body).__name__}: encode() must return bytes")
    return replace(task, body=body, headers=(*task.headers, (CODEC_HEADER, codec.name)))


def decoded(codec: Codec | None, task: LeasedTask) -> LeasedTask:
    """Give a stored task as its handler sees it.

    Raises:
        PermanentTaskFailure: the codec says that nobody can decode the body.
        Error: it cannot be decoded here and now.
    """
    name = next((value for header, value in task.headers if header == CODEC_HEADER), None)
    if name is None:
        return task
    if codec is None or codec.name != name:
        raise ConfigurationError(
            f"the payload was encoded by the codec {name!r}, and this process has "
            f"{'none' if codec is None else repr(codec.name)}: give it to Hookware(codec=...)"
        )
    headers = tuple(header for header in task.headers if header[0] != CODEC_HEADER)
    return replace(task, headers=headers, body=_body(codec, task))


def _body(codec: Codec, task: LeasedTask) -> bytes:
    try:
        body = codec.decode(task.body, _identity(task))
    except Error:
        raise
    except Exception as error:  # noqa: BLE001 - a codec may raise anything, and its text may hold the payload
        raise Error(f"the codec {codec.name!r} cannot decode the payload: {type(error).__qualname__}") from None
    if not isinstance(body, bytes):
        raise ConfigurationError(f"the codec {codec.name!r} gave {type(body).__name__}: decode() must return bytes")
    return body


def _identity(task: NewTask | LeasedTask) -> TaskIdentity:
    return TaskIdentity(id=task.id, queue_name=task.queue_name, name=task.name)
