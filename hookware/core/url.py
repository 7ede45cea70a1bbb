"""A task's URL: a path of this app, checked strictly and stored in one spelling.

The string that is checked is the string that is routed: what two readers could decode differently is refused.
"""

import re
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

MAX_PATH_BYTES = 2083
"""The longest path, in its canonical spelling; the query is not counted."""

MAX_QUERY_BYTES = 65_536
"""The longest query string, in its canonical spelling."""

_BASE = re.compile(r"(https?)://((?:[A-Za-z0-9_.-]+)|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?/?", re.ASCII)
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_RESERVED = ":/?#[]@!$&'()*+,;="
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\x9f\\#]")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_MALFORMED_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_FORBIDDEN_IN_PATH = re.compile(r"%(?:2F|5C)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class UrlParts(NamedTuple):
    """A URL as an ASGI scope carries it."""

    path: str
    raw_path: bytes
    query_string: bytes


class BaseUrl(NamedTuple):
    """Where a request says it was sent to: the scheme, the Host header, and the server's host and port."""

    scheme: str
    authority: str
    host: str
    port: int


def split_base_url(url: str) -> BaseUrl:
    """Give the parts of `http://host`, `https://host:port` and the like; raise ValueError for anything else."""
    found = _BASE.fullmatch(url)
    port = int(found[3] or {"http": 80, "https": 443}[found[1]]) if found else 0
    if found is None or not 0 < port < 65_536:
        raise ValueError(
            f"base_url must be like 'https://example.com', a scheme and a host without a path, got {url!r}"
        )
    host, explicit = found[2], found[3]
    return BaseUrl(found[1], f"{host}:{explicit}" if explicit else host, host.strip("[]"), port)


def canonical_url(url: str) -> str:
    """Give the one spelling of a task's URL: a path that starts with one `/`, and perhaps a query.

    Non-ASCII is percent-encoded as UTF-8, escapes are upper case, escaped unreserved characters are plain, a bare
    trailing `?` is dropped. Giving it its own answer changes nothing.

    Raises:
        ValueError: the URL names a scheme, host or fragment, has a `.` or `..` segment, a backslash, space or
            control character, an escape that hides a separator or is malformed, or is too long.
    """
    if not url.startswith("/") or url.startswith("//"):
        raise _refused(url, "it must start with exactly one '/'", "give a path of this app, without scheme and host")
    if found := _FORBIDDEN.search(url):
        raise _refused(url, f"{found[0]!r} may not stand in it", "percent-encode it, or send it in params=")
    raw_path, _, raw_query = url.partition("?")
    path, query = _spelled(url, raw_path), _spelled(url, raw_query)
    _check_path(url, path)
    if len(query) > MAX_QUERY_BYTES:
        raise _refused(url, f"its query has {len(query)} bytes of {MAX_QUERY_BYTES}", "send the data in the payload")
    return f"{path}?{query}" if query else path


def split_url(canonical: str) -> UrlParts:
    """Give the parts of a URL that `canonical_url` gave; raise ValueError for any other."""
    if canonical_url(canonical) != canonical:
        raise _refused(canonical, "it is not in canonical form", "store what canonical_url gives")
    path, _, query = canonical.partition("?")
    return UrlParts(unquote_to_bytes(path).decode(), path.encode("ascii"), query.encode("ascii"))


def _spelled(url: str, part: str) -> str:
    """Give a path or a query in its canonical spelling."""
    if found := _MALFORMED_ESCAPE.search(part):
        escape = part[found.start() : found.start() + 3]
        raise _refused(url, f"{escape!r} is not a percent escape", "write a plain percent sign as %25")
    try:
        # What is not reserved or unreserved is encoded; '%' is safe here because its escapes have been checked.
        encoded = quote(part, safe=f"{_RESERVED}%")
    except UnicodeEncodeError:
        raise _refused(url, "it cannot be encoded as UTF-8", "remove the lone surrogates") from None
    return _ESCAPE.sub(_spelled_escape, encoded)


def _spelled_escape(escape: re.Match[str]) -> str:
    character = chr(int(escape[0][1:], 16))
    return character if character in _UNRESERVED else escape[0].upper()


def _check_path(url: str, path: str) -> None:
    if len(path) > MAX_PATH_BYTES:
        raise _refused(url, f"its path has {len(path)} bytes of {MAX_PATH_BYTES}", "send the data in the payload")
    if found := _FORBIDDEN_IN_PATH.search(path):
        raise _refused(url, f"{found[0]} hides a separator", "send such values in params=")
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise _refused(url, "its path is not UTF-8 once decoded", "percent-encode its UTF-8 bytes") from None
    if found := _CONTROL.search(decoded):
        raise _refused(url, f"{found[0]!r} is hidden in its path", "send such values in params=")
    if not {".", ".."}.isdisjoint(decoded.split("/")):
        raise _refused(url, "'.' and '..' may not be segments of its path", "give the path that is meant")


def _refused(url: str, rule: str, step: str) -> ValueError:
    shown = url if len(url) <= 200 else f"{url[:200]}..."
    return ValueError(f"the task URL {shown!r} is refused: {rule}; {step}")
