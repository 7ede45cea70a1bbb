"""A network client in ten lines: calls an ASGI app as a server would, and gives back what it sent."""

from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message


@dataclass
class Answer:
    """What the app sent, and what it raised."""

    messages: list[Message] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def status(self) -> int:
        """The status of the response, 0 if none was started."""
        return next((int(m["status"]) for m in self.messages if m["type"] == "http.response.start"), 0)

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(m.get("body", b"") for m in self.messages if m["type"] == "http.response.body")

    @property
    def headers(self) -> dict[str, str]:
        """The headers, by lower-case name."""
        start = next(m for m in self.messages if m["type"] == "http.response.start")
        return {name.decode().lower(): value.decode() for name, value in start.get("headers", [])}


async def request(
    app: ASGIApp,
    path: str,
    *,
    method: str = "POST",
    headers: list[tuple[bytes, bytes]] | None = None,
    body: bytes = b"",
    query: bytes = b"",
    **scope: Any,
) -> Answer:
    """Send one request into `app`, the way a server does."""
    answer = Answer()
    incoming = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return incoming.pop() if incoming else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        answer.messages.append(message)

    full_scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": headers or [],
        "client": ("192.0.2.1", 50000),
        "server": ("testserver", 80),
        **scope,
    }
    try:
        await app(full_scope, receive, send)
    except Exception as error:  # noqa: BLE001 - what the app raises is the answer too
        answer.error = error
    return answer
