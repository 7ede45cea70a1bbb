"""A task's params on their way to a form or query string, and back."""

from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import parse_qsl, urlencode

FORM_TYPE = "application/x-www-form-urlencoded"

MAX_FIELDS = 10_000
"""The most fields that are decoded from one request."""

_BODILESS = frozenset({"GET", "HEAD", "DELETE"})


def encode_params(params: Mapping[str, object]) -> str:
    """Encode params as App Engine does.

    Strings and bytes stand for themselves, an iterable repeats its key (a mapping: by its keys), anything else is
    written by `str()`: None becomes `None`, True becomes `True`, and an empty list nothing at all.

    Raises:
        ValueError: a value cannot be encoded as UTF-8.
    """
    return urlencode(list(_pairs(params)))


def decode_params(method: str, content_type: str | None, query_string: bytes, body: bytes) -> dict[str, list[str]]:
    """Give the fields of a request: those of its query, then those of its body if it is a form.

    Raises:
        ValueError: a field is not UTF-8, or there are more than `MAX_FIELDS`.
    """
    media_type = (content_type or "").partition(";")[0].strip().lower()
    is_form = media_type == FORM_TYPE and method.upper() not in _BODILESS
    fields: dict[str, list[str]] = {}
    count = 0
    for encoded in filter(None, (query_string, body if is_form else b"")):
        pairs = parse_qsl(
            encoded.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS - count
        )  # fmt: skip
        count += len(pairs)
        for name, value in pairs:
            fields.setdefault(name, []).append(value)
    return fields


def _pairs(params: Mapping[str, object]) -> Iterator[tuple[str | bytes, str | bytes]]:
    for key, value in params.items():
        values = value if isinstance(value, Iterable) and not isinstance(value, str | bytes) else (value,)
        for one in values:
            yield _text(key), _text(one)


def _text(value: object) -> str | bytes:
    return value if isinstance(value, str | bytes) else str(value)
