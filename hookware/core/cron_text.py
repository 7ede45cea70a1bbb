"""The language of App Engine's schedules: `every 5 minutes`, `1st,third sat,sun of jan,feb,mar 09:15`.

Source: the grammar `Groc.g` of the App Engine SDK. What it takes and refuses, this takes and refuses: white space
between words is optional, a number has five digits at most, and units are in the plural.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NoReturn

MOST_CHARACTERS = 1000
DAY_SECONDS = 86_400
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ALL_MONTHS = frozenset(range(1, 13))
_QUARTER_MONTHS = frozenset({1, 4, 7, 10})
_ALL_ORDINALS = frozenset(range(1, 6))
_ALL_WEEKDAYS = frozenset(range(7))

_WEEKDAYS: Final = ("sun(day)?", "mon(day)?", "tue(sday)?", "wed(nesday)?", "thu(rsday)?", "fri(day)?", "sat(urday)?")
_MONTHS: Final = (
    *("jan(uary)?", "feb(ruary)?", "mar(ch)?", "apr(il)?", "may", "jun(e)?"),
    *("jul(y)?", "aug(ust)?", "sep(tember)?", "oct(ober)?", "nov(ember)?", "dec(ember)?"),
)
_ORDINALS: Final = ("1st|first", "2nd|second", "3rd|third", "4th|fourth", "5th|fifth")
_WORDS: Final = (  # `month` before `mon`: the first that matches counts
    *((word, word, 0) for word in ("synchronized", "quarter", "month", "every", "from", "day", "of", "to")),
    *(("weekday", rule, day) for day, rule in enumerate(_WEEKDAYS)),
    *(("month name", rule, number) for number, rule in enumerate(_MONTHS, start=1)),
    *(("ordinal", rule, number) for number, rule in enumerate(_ORDINALS, start=1)),
    ("unit", "hours", 3600),
    ("unit", "mins|minutes", 60),
    ("comma", ",", 0),
)
_WORD_RULES: Final = tuple((kind, re.compile(rule), value) for kind, rule, value in _WORDS)
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]|[0-9]):([0-5][0-9])", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,5}")
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_WORD_SHOWN: Final = re.compile(r"[^ \t\n\r,]+")
_SEE = "write it as in 'every 5 minutes', 'every day 09:00' or '1st,3rd mon of jan,jul 17:30'"


class ScheduleTextError(ValueError):
    """The text is not a schedule; the message has the text, the place, the rule and the next step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalText:
    """`every N hours|mins|minutes`; with a start, every day anew from it, and until the end if there is one.

    `start` and `end` are minutes after midnight.
    """

    seconds: int
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DaysText:
    """Certain days at one time of day: days of the month by number, or by weekday and its place in the month.

    `weekdays` count from Sunday, which is 0; `minute` is minutes after midnight. If there are `monthdays`, there are
    no weekdays.
    """

    monthdays: frozenset[int] = frozenset()
    ordinals: frozenset[int] = _ALL_ORDINALS
    weekdays: frozenset[int] = frozenset()
    months: frozenset[int] = _ALL_MONTHS
    minute: int = 0


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    value: int
    position: int


def parse_text(text: str) -> IntervalText | DaysText:
    """Read a schedule of App Engine's.

    Raises:
        ScheduleTextError: it is none.
    """
    if len(text) > MOST_CHARACTERS:
        raise ScheduleTextError(f"the schedule has {len(text)} characters of {MOST_CHARACTERS}: {_SEE}")
    return _Parser(text).schedule()


class _Parser:
    """Recursive descent over the words of one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._next = 0
        self._tokens = list(self._split())

    def schedule(self) -> IntervalText | DaysText:
        if self._kind() == "every" and self._tokens[1].kind == "number":
            result: IntervalText | DaysText = self._interval()
        else:
            result = self._days()
        self._take("end")
        return result

    def _interval(self) -> IntervalText:
        self._take("every")
        number = self._take("number")
        seconds = number.value * self._take("unit", "hours, mins or minutes").value
        if seconds == 0:
            self._refuse(number.position, "the interval must be greater than zero")
        if self._skip("from"):
            start = self._take("time").value
            self._take("to")
            return IntervalText(seconds=seconds, start=start, end=self._take("time").value)
        if not self._skip("synchronized"):
            return IntervalText(seconds=seconds)
        if DAY_SECONDS % seconds != 0:
            self._refuse(number.position, "a synchronized interval must divide 24 hours evenly")
        return IntervalText(seconds=seconds, start=0)

    def _days(self) -> DaysText:
        position = self._tokens[self._next].position
        if self._kind() == "number":
            monthdays = self._list("number", "a day of the month")
            self._take("of")
            months = self._months()
            self._check_monthdays(monthdays, months, position)
            return DaysText(monthdays=monthdays, months=months, minute=self._take("time").value)
        ordinals = _ALL_ORDINALS
        is_every = self._skip("every")
        if not is_every:
            ordinals = self._list("ordinal", "'every', an ordinal like '1st', or days like '1,15 of month'")
        is_day = self._skip("day")
        weekdays = _ALL_WEEKDAYS if is_day else self._list("weekday", "'day' or a weekday like 'mon'")
        months = self._months() if self._skip("of") else _ALL_MONTHS
        minute = self._take("time").value
        if is_day and not is_every:  # "2nd day" is the second day of the month
            return DaysText(monthdays=ordinals, months=months, minute=minute)
        return DaysText(ordinals=ordinals, weekdays=weekdays, months=months, minute=minute)

    def _months(self) -> frozenset[int]:
        if self._skip("month"):
            return _ALL_MONTHS
        if self._skip("quarter"):
            return _QUARTER_MONTHS
        if self._kind() != "ordinal":
            return self._list("month name", "'month', 'quarter' or a month like 'jan'")
        position = self._tokens[self._next].position
        ordinals = self._list("ordinal", "an ordinal")
        if max(ordinals) > 3:
            self._refuse(position, "a quarter has three months: 1st, 2nd or 3rd")
        for kind in ("month", "of", "quarter"):
            self._take(kind)
        return frozenset(month + ordinal - 1 for month in _QUARTER_MONTHS for ordinal in ordinals)

    def _check_monthdays(self, days: frozenset[int], months: frozenset[int], position: int) -> None:
        if min(days) < 1 or max(days) > 31:
            self._refuse(position, "a day of the month must be from 1 to 31")
        if min(days) > max(_MONTH_DAYS[month - 1] for month in months):
            self._refuse(position, f"no named month has {min(days)} days")

    def _list(self, kind: str, wanted: str) -> frozenset[int]:
        values = [self._take(kind, wanted).value]
        while self._skip("comma"):
            values.append(self._take(kind, wanted).value)
        return frozenset(values)

    def _kind(self) -> str:
        return self._tokens[self._next].kind

    def _skip(self, kind: str) -> bool:
        if self._kind() != kind:
            return False
        self._next += 1
        return True

    def _take(self, kind: str, wanted: str | None = None) -> _Token:
        token = self._tokens[self._next]
        if token.kind != kind:
            self._refuse(token.position, f"expected {wanted or _WANTED.get(kind, repr(kind))}")
        self._next += 1
        return token

    def _split(self) -> Iterable[_Token]:
        position = _end_of(_SPACE, self._text, 0)
        while position < len(self._text):
            token, end = _token(self._text, position)
            if token is None:
                self._refuse(position, "this word is not part of the language")
            yield token
            position = _end_of(_SPACE, self._text, end)
        yield _Token("end", 0, position)

    def _refuse(self, position: int, rule: str) -> NoReturn:
        word = _WORD_SHOWN.match(self._text, position)
        at = f"at {word[0][:40]!r} (character {position + 1})" if word else f"at character {position + 1}"
        if position >= len(self._text):
            at = "at its end"
        raise ScheduleTextError(f"the schedule {_shown(self._text)} is refused {at}: {rule}; {_SEE}")


_WANTED = {"end": "the end", "time": "a time from 0:00 to 23:59", "number": "a number", "comma": "','"}


def _token(text: str, position: int) -> tuple[_Token | None, int]:
    if match := _TIME.match(text, position):
        return _Token("time", int(match[1]) * 60 + int(match[2]), position), match.end()
    for kind, rule, value in _WORD_RULES:
        if match := rule.match(text, position):
            return _Token(kind, value, position), match.end()
    if match := _NUMBER.match(text, position):
        return _Token("number", int(match[0]), position), match.end()
    return None, position


def _end_of(rule: re.Pattern[str], text: str, position: int) -> int:
    match = rule.match(text, position)
    return match.end() if match else position


def _shown(text: str) -> str:
    return repr(text) if len(text) <= 100 else f"{text[:100]!r}..."
