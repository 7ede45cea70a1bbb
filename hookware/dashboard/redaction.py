"""What of a task may be shown to whom: payloads, and what may repeat them, only to those who may see them."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from hookware.core.codec import CODEC_HEADER
from hookware.core.filter import Filter
from hookware.core.history import AttemptRecord
from hookware.core.params import decode_params
from hookware.dashboard.visit import RefusedError
from hookware.store.base import TaskInfo

HIDDEN: Final = "•••"
MOST_SHOWN: Final = 4096
_ANSWERED: Final = re.compile(r"(answered (?:\d{3}|#)(?: \([^)]*\))?): .", re.DOTALL)
_SECRET: Final = ("auth", "cookie", "token", "secret", "session", "passw", "credential", "signature", "api-key", "csrf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A payload as it is shown: what it is, and, to those who may see it, its text or its params."""

    kind: str
    byte_count: int
    text: str = ""
    params: tuple[tuple[str, str], ...] = ()
    is_cut: bool = False
    is_hidden: bool = False


def payload_of(task: TaskInfo, *, may_see: bool) -> Payload:
    """Give the payload of a task as it may be shown."""
    headers = dict(task.headers)
    kind = headers.get("content-type", "no content type")
    if CODEC_HEADER in headers:
        return Payload(kind=f"encoded by {headers[CODEC_HEADER]}", byte_count=len(task.body), is_hidden=True)
    if not may_see:
        return Payload(kind=kind, byte_count=len(task.body), is_hidden=True)
    text = task.body[:MOST_SHOWN].decode("utf-8", "replace")
    is_cut = len(task.body) > MOST_SHOWN
    if not is_cut and kind.partition(";")[0].strip().lower() == "application/json":
        text = _indented(text)
    return Payload(kind=kind, byte_count=len(task.body), text=text, params=_params(task), is_cut=is_cut)


def _indented(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)[: 2 * MOST_SHOWN]
    except (ValueError, RecursionError):
        return text


def _params(task: TaskInfo) -> tuple[tuple[str, str], ...]:
    kind = dict(task.headers).get("content-type")
    try:
        fields = decode_params(task.method, kind, task.url.partition("?")[2].encode(), task.body)
    except ValueError:
        return ()
    pairs = ((name, value) for name, values in fields.items() for value in values)
    return tuple((name[:200], value[:MOST_SHOWN]) for name, value in list(pairs)[:50])


def url_of(url: str, *, may_see: bool) -> str:
    """Give a URL as it may be shown: its query carries values as a form does."""
    path, mark, _query = url.partition("?")
    return url if may_see or not mark else f"{path}?{HIDDEN}"


def headers_of(headers: Iterable[tuple[str, str]], *, may_see: bool) -> list[tuple[str, str]]:
    """Give headers as they may be shown: what may be a secret to nobody."""
    return [
        (name, value if may_see and not any(word in name.lower() for word in _SECRET) else HIDDEN)
        for name, value in headers
    ]


def answer_of(record: AttemptRecord, *, may_see: bool) -> str | None:
    """Give the beginning of an attempt's response as it may be shown; None: it is hidden. It may repeat the payload."""
    return record.response_text if may_see else None


def error_of(text: str, *, may_see: bool) -> str:
    """Give an error as it may be shown: the text of an answer, in which frameworks repeat the input, is hidden."""
    answered = _ANSWERED.match(text)
    return text if may_see or answered is None else f"{answered[1]}: {HIDDEN}"


def task_of(info: TaskInfo, *, may_see: bool) -> TaskInfo:
    """Give a task for a list."""
    return info if info.last_error is None else replace(info, last_error=error_of(info.last_error, may_see=may_see))


def record_of(record: AttemptRecord, *, may_see: bool) -> AttemptRecord:
    """Give the record of an attempt as it may be shown."""
    return replace(
        record,
        url=url_of(record.url, may_see=may_see),
        error=None if record.error is None else error_of(record.error, may_see=may_see),
        response_headers=tuple(headers_of(record.response_headers, may_see=may_see)),
    )


def sentence_of(sentence: str, error: str | None, *, may_see: bool) -> str:
    """Give a sentence that may quote a task's last error."""
    quoted = " ".join((error or "").split())
    return sentence.replace(quoted, error_of(quoted, may_see=may_see)) if quoted else sentence


def refuse_to_tell(chosen: Filter, *, may_see: bool, may_act: bool) -> None:
    """Refuse filters by which values could be guessed that are not shown.

    Who acts on groups of tasks chooses them by their errors.

    Raises:
        RefusedError: it is one.
    """
    if not (may_see or may_act) and chosen.errors:
        raise RefusedError("A filter by the text of errors is for those who may act on tasks: leave error: out.")
    if not may_see and any("?" in url for url in chosen.urls):
        raise RefusedError(
            "A filter by the query of a URL is for those who may see payloads: leave out what follows ?."
        )
