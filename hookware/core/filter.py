"""The grammar by which tasks are chosen, one for the dashboard, the command line and the API: a pure parser.

`state:dead queue:mail url:/worker* reason:retries error:"timed out" older:2h attempts:>3`: each term narrows it.
Values of one term that are separated by commas are alternatives.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, NamedTuple

SUB_STATES: Final = ("due", "scheduled", "waiting", "retrying", "running", "dead", "completed", "pull")
"""The states by which tasks are chosen; the first four are all stored as PENDING."""

MAX_FILTER_CHARACTERS: Final = 2000
MAX_ALTERNATIVES: Final = 100
_MOST_NUMBER: Final = 2**63 - 1
_UNITS_US: Final = {"s": 1_000_000, "min": 60_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(s|min|m|h|d)")
_RANGE = re.compile(r"(>=|<=|>|<|=)?(\d{1,18})(?:\.\.(\d{1,18}))?")
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|([^\s,"]+)')

TaskState = Literal["due", "scheduled", "waiting", "retrying", "running", "dead", "completed", "pull"]


class FilterError(ValueError):
    """A filter that cannot be read; `position` is where, from 0, and the text says what to write."""

    def __init__(self, text: str, position: int) -> None:
        super().__init__(f"{text} (at character {position + 1})")
        self.position = position


class Range(NamedTuple):
    """Whole numbers from `least` to `most`, both included; None: no bound."""

    least: int | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which tasks are meant: those for which every field that is not empty holds.

    Attributes:
        states: they are in one of these.
        queue_names: in one of these queues.
        urls: their path and query is one of these, or begins with one that ends in "*".
        reasons: they are dead for one of these.
        errors: their last error has each of these texts in it, whatever the case of its letters.
        statuses: their last attempt was answered with one of these; 0: with none.
        names, ids, keys, fair_keys, limit_keys, tags: they have one of these.
        attempts, crashes: these numbers lie within these bounds.
        older_us: that long ago at least they ended, where they have ended, or else were added.
        newer_us: less than that long ago.
    """

    states: tuple[TaskState, ...] = ()
    queue_names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    keys: tuple[str, ...] = ()
    fair_keys: tuple[str, ...] = ()
    limit_keys: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    attempts: Range | None = None
    crashes: Range | None = None
    older_us: int | None = None
    newer_us: int | None = None

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        given = ((key, term, getattr(self, term.field)) for key, term in TERMS.items())
        return " ".join(f"{key}:{term.write(value)}" for key, term, value in given if value not in (None, ()))


class _Term(NamedTuple):
    field: str
    read: Callable[[str], object]
    write: Callable[[object], str]
    example: str
    is_single: bool = False


def parse(text: str) -> Filter:
    """Read a filter; an empty one means every task.

    Raises:
        FilterError: it cannot be read.
    """
    if len(text) > MAX_FILTER_CHARACTERS:
        raise FilterError(
            f"a filter may have {MAX_FILTER_CHARACTERS} characters: leave some out", MAX_FILTER_CHARACTERS
        )
    chosen, at = Filter(), 0
    while (at := _past_blanks(text, at)) < len(text):
        key, start = _key(text, at)
        words, at = _words(text, start)
        chosen = _with(chosen, key, words, start)
    return chosen


def _past_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _key(text: str, at: int) -> tuple[str, int]:
    found = re.compile(r"([A-Za-z_]+):").match(text, at)
    if found is None:
        word = text[at:].split(maxsplit=1)[0]
        raise FilterError(f'{word[:50]!r} is no term: write key:value, such as error:"{_plain(word)}"', at)
    key = found[1].lower()
    if key not in TERMS:
        raise FilterError(f"there is no key {found[1][:50]!r}: the keys are {', '.join(TERMS)}", at)
    return key, found.end()


def _plain(word: str) -> str:
    return word[:30].replace('"', "").replace("\\", "")


def _words(text: str, start: int) -> tuple[list[tuple[str, int]], int]:
    """Read the values of a term, with the place of each, and where the next term may begin."""
    words: list[tuple[str, int]] = []
    at = start
    while True:
        found = _WORD.match(text, at)
        if found is None:
            if text[at : at + 1] == '"':
                raise FilterError('the quoted text does not end: add a "', at)
            raise FilterError('a value is missing: write it right after the colon, a text with blanks in "', at)
        value = found[2] if found[1] is None else re.sub(r"\\(.)", r"\1", found[1])
        words.append((value, at))
        at = found.end()
        if len(words) > MAX_ALTERNATIVES:
            raise FilterError(f"a term may have {MAX_ALTERNATIVES} values: split it over several filters", at)
        if text[at : at + 1] != ",":
            break
        at += 1
    if at < len(text) and not text[at].isspace():
        raise FilterError("a blank is missing between two terms", at)
    return words, at


def _with(chosen: Filter, key: str, words: list[tuple[str, int]], start: int) -> Filter:
    term = TERMS[key]
    before = getattr(chosen, term.field)
    if term.is_single:
        if before is not None or len(words) > 1:
            raise FilterError(f"{key} is given twice: leave one out", start)
        return _replaced(chosen, term.field, _value(key, *words[0]))
    if before and term.field != "errors":
        raise FilterError(f"{key} is given twice: alternatives are written {key}:one,other", start)
    values = tuple(dict.fromkeys(_value(key, word, at) for word, at in words))
    return _replaced(chosen, term.field, (*before, *values))


def _replaced(chosen: Filter, name: str, value: object) -> Filter:
    changes: dict[str, Any] = {name: value}  # a term knows the type of its field
    return replace(chosen, **changes)


def _value(key: str, word: str, at: int) -> object:
    term = TERMS[key]
    if "\0" in word:
        raise FilterError("no text of a task has a NUL in it: leave it out", at)
    try:
        return term.read(word)
    except ValueError as error:
        raise FilterError(f"{key}: {error}, such as {key}:{term.example}", at) from None


def _text(word: str) -> str:
    if not word:
        raise ValueError("write a text")
    return word


def _state(word: str) -> str:
    if word.lower() not in SUB_STATES:
        raise ValueError(f"there is no state {word[:50]!r}: write one of {', '.join(SUB_STATES)}")
    return word.lower()


def _number(word: str) -> int:
    if not re.fullmatch(r"\d{1,19}", word, re.ASCII) or int(word) > _MOST_NUMBER:
        raise ValueError(f"{word[:50]!r} is no number: write a whole number")
    return int(word)


def _status(word: str) -> int:
    if word.lower() == "none":
        return 0
    if not re.fullmatch(r"[1-5]\d\d", word, re.ASCII):
        raise ValueError(f"{word[:50]!r} is no status: write one from 100 to 599, or none")
    return int(word)


def _range(word: str) -> Range:
    found = _RANGE.fullmatch(word) if word.isascii() else None
    if found is None or (found[1] and found[3]):
        raise ValueError(f"{word[:50]!r} is no number: write 3, >3, <=3 or 3..5")
    number = int(found[2])
    match found[1]:
        case ">":
            return Range(number + 1, None)
        case ">=":
            return Range(number, None)
        case "<":
            return Range(None, number - 1)
        case "<=":
            return Range(None, number)
        case _:
            return Range(number, int(found[3]) if found[3] else number)


def _span(word: str) -> int:
    found = _SPAN.fullmatch(word) if word.isascii() else None
    if found is None:
        raise ValueError(f"{word[:50]!r} is no span of time: write a number and s, min, h or d")
    return round(float(found[1]) * _UNITS_US[found[2]])


def _write_texts(value: object) -> str:
    return ",".join(_quoted(str(each)) for each in value)  # type: ignore[attr-defined]  # a tuple


def _write_statuses(value: object) -> str:
    return ",".join(str(each or "none") for each in value)  # type: ignore[attr-defined]  # a tuple


def _quoted(word: str) -> str:
    if word and not re.search(r'[\s,"\\]', word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _write_range(value: object) -> str:
    least, most = value if isinstance(value, Range) else Range()
    if most is not None and least is None:
        return f"<={most}" if most >= 0 else "<0"
    return f">={least}" if most is None else f"{least}..{most}"


def _write_span(value: object) -> str:
    us = int(str(value))
    for unit in ("d", "h", "min"):
        if us and us % _UNITS_US[unit] == 0:
            return f"{us // _UNITS_US[unit]}{unit}"
    return f"{us // 1_000_000}.{us % 1_000_000:06d}".rstrip("0").rstrip(".") + "s"


TERMS: Final[Mapping[str, _Term]] = {
    "state": _Term("states", _state, _write_texts, "dead"),
    "queue": _Term("queue_names", _text, _write_texts, "mail"),
    "url": _Term("urls", _text, _write_texts, "/worker*"),
    "reason": _Term("reasons", _text, _write_texts, "retries"),
    "error": _Term("errors", _text, _write_texts, '"timed out"'),
    "status": _Term("statuses", _status, _write_statuses, "503"),
    "name": _Term("names", _text, _write_texts, "order-7"),
    "id": _Term("ids", _number, _write_texts, "912345678901234567"),
    "key": _Term("keys", _text, _write_texts, "user-7"),
    "fair_key": _Term("fair_keys", _text, _write_texts, "customer-7"),
    "limit_key": _Term("limit_keys", _text, _write_texts, "account-7"),
    "tag": _Term("tags", _text, _write_texts, "thumbnails"),
    "attempts": _Term("attempts", _range, _write_range, ">3", is_single=True),
    "crashes": _Term("crashes", _range, _write_range, ">0", is_single=True),
    "older": _Term("older_us", _span, _write_span, "2h", is_single=True),
    "newer": _Term("newer_us", _span, _write_span, "30min", is_single=True),
}
"""The terms by their keys, each with what it sets."""

assert {term.field for term in TERMS.values()} == {each.name for each in fields(Filter)}  # noqa: S101 - a law of this file
