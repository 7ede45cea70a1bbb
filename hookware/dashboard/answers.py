"""The answers of the dashboard: each with the headers that keep a browser from doing anything else with it."""

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
SECURITY: Final[Mapping[str, str]] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not "no-referrer": a browser that sends no Sec-Fetch-Site would then send "Origin: null" with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_FRESH: Final = {"cache-control": "no-store", "vary": "cookie, authorization"}
_KINDS: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


def page(request: Request, html: str, status: int = 200) -> Response:
    """Give a page; or 304 if it is the one that the browser says it has."""
    body = html.encode("utf-8", "replace")
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**SECURITY, **_FRESH, "etag": etag}
    if status == 200 and _matches(request, etag):
        return Response(status_code=304, headers=headers)
    return Response(body, status, headers, "text/html; charset=utf-8")


def moved(url: str) -> Response:
    """Lead a browser on, with GET, to a place of our own."""
    return Response(status_code=303, headers={**SECURITY, **_FRESH, "location": url})


def plain(text: str, status: int, **headers: str) -> Response:
    """Give a line of text."""
    return Response(text + "\n", status, {**SECURITY, **_FRESH, **headers}, "text/plain; charset=utf-8")


def _matches(request: Request, etag: str) -> bool:
    given = request.headers.get("if-none-match", "")
    return any(each.strip().removeprefix("W/") == etag for each in given.split(","))


class Asset(NamedTuple):
    """A file that pages need: its bytes, as they are and compressed."""

    kind: str
    body: bytes
    compressed: bytes
    etag: str


class Assets:
    """The files of the package, read once: no path from outside ever reaches the file system."""

    def __init__(self) -> None:
        files = sorted((Path(__file__).parent / "static").iterdir())
        self._assets = {file.name: _asset(file) for file in files if file.suffix in _KINDS}
        together = "".join(asset.etag for asset in self._assets.values())
        self.version = hashlib.sha256(together.encode()).hexdigest()[:12]
        """Changes with any of them: part of their addresses."""

    def answer(self, request: Request, name: str) -> Response:
        """Give a file."""
        asset = self._assets.get(name)
        if asset is None:
            return plain("There is no such file.", 404)
        headers = {**SECURITY, "cache-control": "private, max-age=86400", "etag": asset.etag, "vary": "accept-encoding"}
        if _matches(request, asset.etag):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(asset.compressed, 200, {**headers, "content-encoding": "gzip"}, asset.kind)
        return Response(asset.body, 200, headers, asset.kind)


def _asset(file: Path) -> Asset:
    body = file.read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return Asset(_KINDS[file.suffix], body, gzip.compress(body, mtime=0), etag)
