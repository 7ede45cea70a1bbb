"""A database's URL as people may read it: in the log, in errors, in a line to paste."""

from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

_SECRET: Final = ("password", "passfile", "sslpassword")
"""What drivers take in a URL's query too."""


def shown(url: URL) -> str:
    """Give a URL without its password, wherever it stands."""
    hidden = {name: "hidden" for name in url.query if name.lower() in _SECRET}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def holds_password(text: str) -> bool:
    """Say whether a URL holds a password, or cannot be read."""
    try:
        url = make_url(text)
    except ArgumentError:
        return True
    return url.password is not None or any(name.lower() in _SECRET for name in url.query)
