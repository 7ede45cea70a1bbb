"""A task's body on its way through the codec: into its row, and out of it again.

The row says by a header that no task can set which codec made it: nothing is guessed from the body itself.
"""

from dataclasses import replace

from hookware.core.codec import CODEC_HEADER, Codec, TaskIdentity
from hookware.core.task import Headers, LeasedTask, NewTask
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
    if all(header != CODEC_HEADER for header, _ in task.headers):
        return task
    body = plain_body(codec, task.headers, task.body, _identity(task))
    return replace(task, headers=tuple(header for header in task.headers if header[0] != CODEC_HEADER), body=body)


def plain_body(codec: Codec | None, headers: Headers, body: bytes, task: TaskIdentity) -> bytes:
    """Give the body of a stored task as it was added. Raises as `decoded` does."""
    name = next((value for header, value in headers if header == CODEC_HEADER), None)
    if name is None:
        return body
    if codec is None or codec.name != name:
        raise ConfigurationError(
            f"the payload was encoded by the codec {name!r}, and this process has "
            f"{'none' if codec is None else repr(codec.name)}: give it to Hookware(codec=...)"
        )
    return _checked(codec, body, task)


def _checked(codec: Codec, stored: bytes, task: TaskIdentity) -> bytes:
    try:
        body = codec.decode(stored, task)
    except Error:
        raise
    except Exception as error:  # noqa: BLE001 - a codec may raise anything, and its text may hold the payload
        raise Error(f"the codec {codec.name!r} cannot decode the payload: {type(error).__qualname__}") from None
    if not isinstance(body, bytes):
        raise ConfigurationError(f"the codec {codec.name!r} gave {type(body).__name__}: decode() must return bytes")
    return body


def _identity(task: NewTask | LeasedTask) -> TaskIdentity:
    return TaskIdentity(id=task.id, queue_name=task.queue_name, name=task.name)
