"""The answers that hookware gives itself."""

from starlette.types import Receive, Scope, Send


async def forbid(send: Send) -> None:
    """Refuse a request from the network to a path that runs tasks only."""
    body = b"Forbidden: this path runs tasks only."
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    """Be the app where there is none: no lifespan, no page."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
