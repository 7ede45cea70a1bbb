"""What the app answered to a delivery: the messages it sends are judged and thrown away."""

from collections.abc import Iterable, Sequence
from email.utils import parsedate_to_datetime

import anyio
from anyio.lowlevel import checkpoint
from starlette.types import Message

from hookware.core.history import MAX_RESPONSE_BYTES
from hookware.env import Env
from hookware.errors import describe

NO_RETRY_HEADER = b"x-hookware-no-retry"
"""On a response that is not a success, with the value 1: do not try this task again."""

_MOST_RETRY_AFTER_SECONDS = 30 * 86_400
_MOST_ERROR_BYTES = 200
_POSTPONING = (429, 503)
_NO_ROUTE = (
    " (does a handler or route of the app take this method and URL? Check url=, and that the module which "
    "registers the handler is imported)"
)


def is_success(status: int) -> bool:
    """Say whether a status completes a task: 2xx, and nothing else."""
    return 200 <= status < 300


class Answer:
    """The response of one attempt, as far as it has come.

    Attributes:
        status: the HTTP status, 0 while there is none.
        headers: its headers, once there is a status.
        body: the beginning of its body; of a success only where it `keeps_all`.
        byte_count: how long the body was.
        finished: whether its last byte has come.
    """

    def __init__(self, env: Env, *, keeps_all: bool = False) -> None:
        self._env = env
        self._keeps_all = keeps_all
        self._violation: str | None = None
        self._no_retry = False
        self._retry_after = b""
        self.headers: Sequence[tuple[bytes, bytes]] = ()
        self.body = b""
        self.status = 0
        self.byte_count = 0
        self.finished = False
        self._finishes: anyio.Event | None = None  # most apps never wait for it

    @property
    def succeeded(self) -> bool:
        """Whether this is a 2xx, down to its last byte, by the rules of ASGI."""
        return is_success(self.status) and self.finished and self._violation is None

    @property
    def no_retry(self) -> bool:
        """Whether a failure with this answer is final."""
        return self._no_retry

    @property
    def retry_after_us(self) -> int:
        """The least wait that a 429 or 503 asks for, in microseconds; at most 30 days."""
        if self.status not in _POSTPONING:
            return 0
        seconds = _retry_after_seconds(self._retry_after.decode("latin-1"), self._env.now_us() / 1e6)
        return int(min(max(seconds, 0), _MOST_RETRY_AFTER_SECONDS) * 1_000_000)

    @property
    def progress(self) -> str:
        """How far the response had come."""
        return f"status {self.status}, {self.byte_count} bytes so far" if self.status else "it had not begun"

    @property
    def complaint(self) -> str:
        """Why this is not a success."""
        if self._violation is not None:
            return f"the app broke the ASGI protocol: {self._violation}"
        if self.status == 0:
            return "the app returned without a response"
        if not self.finished:
            return f"the response ended without its last body message (status {self.status}, {self.byte_count} bytes)"
        if 300 <= self.status < 400:
            return (
                f"answered {self.status}: redirects are not followed; give the task the URL that answers 2xx, "
                "or Hookware a base_url that is not redirected"
            )
        where = _NO_ROUTE if self.status in (404, 405) else ""
        text = self.body[:_MOST_ERROR_BYTES].decode("utf-8", "replace").strip()
        return f"answered {self.status}{where}{': ' if text else ''}{text}"

    def succeed(self) -> None:
        """Take an empty 200: the whole answer of a handler that returned nothing."""
        self.status, self.finished = 200, True

    async def wait_finished(self) -> None:
        """Wait for its last byte."""
        if self.finished:
            await checkpoint()  # an app that asks again and again must leave the loop to others
            return
        self._finishes = self._finishes or anyio.Event()
        await self._finishes.wait()

    async def take(self, message: Message) -> None:
        """Take a message of the app, as its `send`.

        Raises:
            RuntimeError: the message breaks the protocol. The attempt has failed then, raised further or not.
        """
        try:
            self._take(message)
        except Exception as error:
            self._violation = self._violation or describe(error)
            await checkpoint()
            raise RuntimeError(f"the app broke the ASGI protocol: {self._violation}") from error
        if message["type"] != "http.response.start" and not self.finished:
            await checkpoint()  # an endless response must meet its deadline, and leave the loop to others

    def _take(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start" and self.status == 0:
            self._start(message["status"], message.get("headers", ()))
        elif kind == "http.response.body" and self.status != 0 and not self.finished:
            body = message.get("body", b"")
            self.byte_count += len(body)
            if self._keeps_all or not is_success(self.status):
                self.body += body[: MAX_RESPONSE_BYTES - len(self.body)]
            if not message.get("more_body", False):
                self.finished = True
                if self._finishes is not None:
                    self._finishes.set()
        else:
            end = ", finished" if self.finished else ""
            raise ValueError(f"{kind!r} is not expected here ({self.progress}{end})")

    def _start(self, status: object, headers: Iterable[tuple[object, object]]) -> None:
        if not isinstance(status, int) or not 100 <= status <= 999:
            raise ValueError(f"the status must be a whole number from 100 to 999, got {status!r}")
        pairs: list[tuple[bytes, bytes]] = []
        for name, value in headers:
            if not isinstance(name, bytes) or not isinstance(value, bytes):
                kinds = f"{type(name).__name__} and {type(value).__name__}"
                raise ValueError(f"a header must be a pair of bytes, got {kinds}: encode name and value as Latin-1")
            pairs.append((name, value))
            if name.lower() == NO_RETRY_HEADER:
                self._no_retry = value.strip() == b"1"
            elif name.lower() == b"retry-after":
                self._retry_after = value.strip()
        self.headers, self.status = tuple(pairs), int(status)


def _retry_after_seconds(value: str, now: float) -> float:
    """Give the seconds that a Retry-After header asks for, a number or an HTTP date; 0 if it is neither."""
    if value.isascii() and value.isdigit():
        return float(value[:20])
    try:
        return parsedate_to_datetime(value).timestamp() - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
