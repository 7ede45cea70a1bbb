"""Header rules: what a task may set, what the network may not, and what every delivery carries."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from hookware.core.queue import CRON_QUEUE
from hookware.core.task import Headers, LeasedTask

INTERNAL_PREFIXES = ("x-appengine-", "x-cloudtasks-", "x-hookware-")
"""Names that only hookware sets. From the network they are removed, from a task's headers dropped."""

FORBIDDEN = frozenset(
    {
        "connection", "content-length", "expect", "forwarded", "host", "http2-settings", "keep-alive",
        "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding",
        "upgrade", "x-http-method", "x-http-method-override", "x-method-override", "x-real-ip",
    }
)  # fmt: skip
"""Names a task may not set, besides `X-Forwarded-*`: they tell a server how to read, route or trust a request."""

USER_AGENT = "hookware"
OCTET_STREAM = "application/octet-stream"

_FORWARDED = "x-forwarded-"
_INTERNAL_BYTES = tuple(prefix.encode() for prefix in INTERNAL_PREFIXES)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_METHOD = re.compile(r"[A-Z]+")
_FIELD_VALUE = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")


def check_header(name: str, value: str) -> None:
    """Check a header by RFC 9110: the name is a token; the value Latin-1, without controls, not padded.

    Raises:
        ValueError: one of them is not; the value itself is not in the message, for it may be a secret.
    """
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"the header name {name[:100]!r} is refused: letters, digits and !#$%&'*+-.^_`|~ are allowed")
    if not _FIELD_VALUE.fullmatch(value):
        raise ValueError(
            f"the value of the header {name!r} is refused: it may not hold control characters, characters beyond "
            "Latin-1, or whitespace at its ends; percent-encode it, or send it in params="
        )


@lru_cache(32)
def checked_method(method: str) -> str:
    """Give a request's method as it is; raise ValueError if it is none."""
    if not _METHOD.fullmatch(method):
        raise ValueError(f"the method {method[:20]!r} is refused: it must be a word of capital letters")
    return method


def is_internal(name: str) -> bool:
    """Say whether only hookware may set this header, in whatever spelling: `x_appengine_x` is one of them."""
    return _folded(name).startswith(INTERNAL_PREFIXES)


def is_forbidden(name: str) -> bool:
    """Say whether a task may not set this header."""
    folded = _folded(name)
    return folded in FORBIDDEN or folded.startswith(_FORWARDED)


def strip_internal(raw_headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    """Remove what only hookware may set from the headers of a network request.

    Gives the same object when there is nothing to remove.
    """
    headers = raw_headers if isinstance(raw_headers, list | tuple) else list(raw_headers)
    kept = [header for header in headers if not _comes_from_us(header[0])]
    return headers if len(kept) == len(headers) else kept


@dataclass(frozen=True, slots=True)
class OwnHeaders:
    """What a delivery carries of the headers that its task was given.

    Attributes:
        headers: as an ASGI scope carries them.
        content_type: the first of that name; None: there is none.
    """

    headers: tuple[tuple[bytes, bytes], ...]
    content_type: str | None


@lru_cache(256)
def own_headers(task_headers: Headers) -> OwnHeaders:
    """Give what is delivered of a task's own headers.

    Raises:
        ValueError: the task holds what no header may: something else than hookware has stored it.
    """
    for name, value in task_headers:
        check_header(name, value)
    own = [(name, value) for name, value in task_headers if not is_internal(name) and not is_forbidden(name)]
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in own]
    names = {name for name, _ in own}
    if "user-agent" not in names:
        headers.append((b"user-agent", USER_AGENT.encode()))
    return OwnHeaders(tuple(headers), next((value for name, value in own if name == "content-type"), None))


def content_type_of(task: LeasedTask) -> str:
    """Give the content type of a delivery, empty if it has none.

    Raises:
        ValueError: the task holds what no header may.
    """
    content_type = own_headers(task.headers).content_type
    return (OCTET_STREAM if task.body else "") if content_type is None else content_type


def delivery_headers(task: LeasedTask, host: str = "localhost") -> list[tuple[bytes, bytes]]:
    """Give the headers of one attempt as an ASGI scope carries them: the task's own first, then hookware's.

    Raises:
        ValueError: the task holds what no header may: something else than hookware has stored it.
    """
    check_names(task)
    own = own_headers(task.headers)
    headers = list(own.headers)
    if task.body and own.content_type is None:
        headers.append((b"content-type", OCTET_STREAM.encode()))
    headers += [(b"host", host.encode("latin-1")), (b"content-length", b"%d" % len(task.body)), *_about(task)]
    return headers


def check_names(task: LeasedTask) -> None:
    """Raise ValueError if the name of the task, or of its queue, can stand in no header."""
    _check_queue_name(task.queue_name)
    if task.name:
        check_header("task-name", task.name)


@lru_cache(256)
def _check_queue_name(name: str) -> None:
    check_header("queue-name", name)


def _about(task: LeasedTask) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"x-appengine-queuename", task.queue_name.encode("latin-1")),
        (b"x-appengine-taskname", task.label.encode("latin-1")),
        (b"x-appengine-taskretrycount", b"%d" % (task.attempt_count - 1)),
        (b"x-appengine-taskexecutioncount", b"%d" % task.failure_count),
        (b"x-appengine-tasketa", repr(task.eta_us / 1e6).encode()),
        (b"x-hookware-task-id", b"%d" % task.id),
        (b"x-hookware-fence", b"%d" % task.fence),
        (b"x-hookware-deadline", repr(task.deadline_us / 1e6).encode()),
    ]
    if task.queue_name == CRON_QUEUE:
        headers.append((b"x-appengine-cron", b"true"))
    if task.last_status is not None:
        headers.append((b"x-appengine-taskpreviousresponse", b"%d" % task.last_status))
    return headers


def _comes_from_us(name: bytes) -> bool:
    return name.strip().lower().replace(b"_", b"-").startswith(_INTERNAL_BYTES)


def _folded(name: str) -> str:
    return name.strip().lower().replace("_", "-")
