"""What a browser sends: forms, bounded and read strictly."""

from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from hookware.core.params import FORM_TYPE

MOST_BYTES: Final = 262_144
"""The largest form that is read; a task that is composed by hand fits in it."""

MOST_FIELDS: Final = 50


class FormError(ValueError):
    """A form that is not read: the text says why, `status` is what is answered."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


async def read_form(request: Request) -> dict[str, str]:
    """Give the fields of a form; of one that stands more than once, the last.

    Raises:
        FormError: it is none, or too large.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        raise FormError("Send a form: application/x-www-form-urlencoded.", 415)
    if "content-encoding" in request.headers:
        raise FormError("Send the form as it is, without Content-Encoding.", 415)
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise FormError(f"A form may have {MOST_BYTES} bytes.", 413)
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError:
        raise FormError("The form cannot be read.", 400) from None
    return dict(fields)
