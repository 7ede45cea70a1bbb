"""What may stand between a task's body and its row: a codec, which the row names."""

from dataclasses import dataclass
from typing import Final, Protocol

CODEC_HEADER: Final = "x-hookware-codec"
"""The stored header that names the codec which made the body. No task can set it, for it is an internal name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskIdentity:
    """What a codec is told of the task whose body it has; none of it changes while the task lives.

    Attributes:
        id: the task's id.
        queue_name: its queue.
        name: its name, or None.
    """

    id: int
    queue_name: str
    name: str | None


class Codec(Protocol):
    """Encodes the bodies of tasks for the database, and decodes them for their handlers.

    Both methods are called in the event loop or in a thread, wherever a task is added or run: they must be quick, do
    no I/O, and be safe to call from several threads.
    """

    @property
    def name(self) -> str:
        """What the rows call it, such as "aes-256-gcm"; a codec of another name is not asked to decode them."""
        ...

    def encode(self, body: bytes, task: TaskIdentity) -> bytes:
        """Give what is stored of a body, which is not empty. What this raises, `add()` raises."""
        ...

    def decode(self, body: bytes, task: TaskIdentity) -> bytes:
        """Give the body back.

        Raises:
            PermanentTaskFailure: it never will be; the task is dead at once.
            Exception: anything else lets the task be tried again later.
        """
        ...
