"""Values from a YAML file or a mapping, checked one by one; an error knows by its path where the value stands."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

Path = tuple[str | int, ...]
"""How to get to a value from the top: `("queue", 0, "rate")`."""

_MOST_NUMBER: Final = 1e9
_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class SettingError(ValueError):
    """A value is refused; the message has the value, the rule and the next step.

    Attributes:
        path: where the value stands.
    """

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


def fields_of(value: object, known: Sequence[str], path: Path) -> Mapping[str, object]:
    """Give a mapping whose keys are all known, without those that have no value."""
    if not isinstance(value, Mapping):
        raise SettingError(path, f"expected keys and values, got {shown(value)}: the keys are {', '.join(known)}")
    for key in value:
        if key not in known:
            raise SettingError((*path, str(key)), f"the key {shown(key)} is not known: use {', '.join(known)}")
    return {key: each for key, each in value.items() if each is not None}


def items_of(value: object, path: Path) -> Iterator[tuple[Path, object]]:
    """Give the items of a list, each with its path; nothing at all is an empty list."""
    if value is None:
        return
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise SettingError(path, f"expected a list, got {shown(value)}: begin each item with '- '")
    yield from (((*path, index), item) for index, item in enumerate(value))


def required(fields: Mapping[str, object], key: str, path: Path) -> object:
    """Give the value of a key that must be there."""
    if key not in fields:
        raise SettingError(path, f"{key!r} is missing: give it a value")
    return fields[key]


def matched(value: object, rule: re.Pattern[str], says: str, path: Path) -> str:
    """Give a value as text that must match; YAML makes numbers of texts like `5`."""
    text = value if isinstance(value, str) else str(value)
    if rule.fullmatch(text) is None:
        raise SettingError(path, f"{_key(path)} {shown(value)} is refused: {says}")
    return text


def whole(value: object, path: Path) -> int:
    """Give a whole number from -1e9 to 1e9; a fraction is cut off, as App Engine does."""
    number = int(_converted(value, int, "a whole number", path))
    if abs(number) > _MOST_NUMBER:
        raise SettingError(path, f"{_key(path)} {shown(number)} is refused: it must be from -1e9 to 1e9")
    return number


def count(value: object, path: Path) -> int:
    """Give a whole number from 0 to 1e9."""
    return int(_ranged(whole(value, path), path))


def seconds(value: object, path: Path) -> float:
    """Give a number from 0 to 1e9."""
    return _ranged(_converted(value, float, "a number of seconds", path), path)


def age_seconds(value: object, path: Path, *, least: int = 1) -> int:
    """Give an age such as `2d` or `1.5h` in whole seconds."""
    text, says = str(value), "write a number and one of s, m, h, d, as in 1.5h"
    unit = _UNIT_SECONDS.get(text[-1:])
    if unit is None or not isinstance(value, str):
        raise SettingError(path, f"{_key(path)} {shown(value)} is refused: {says}")
    number = _converted(text[:-1], float, says, path)
    if not least <= number * unit <= _MOST_NUMBER:
        raise SettingError(path, f"{_key(path)} {shown(value)} is refused: it must be from {least} to 1e9 seconds")
    return int(number * unit)


def shown(value: object) -> str:
    """Give a value as a message shows it."""
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        return "a number with very many digits"
    return text if len(text) <= 100 else f"{text[:100]}..."


def _converted(value: object, kind: type[int] | type[float], says: str, path: Path) -> float:
    try:
        if isinstance(value, str | int | float):
            return kind(value)
    except (ValueError, OverflowError):
        pass
    raise SettingError(path, f"{_key(path)} {shown(value)} is refused: it must be {says}")


def _ranged(number: float, path: Path) -> float:
    if not 0 <= number <= _MOST_NUMBER:
        raise SettingError(path, f"{_key(path)} {shown(number)} is refused: it must be from 0 to 1e9")
    return number


def _key(path: Path) -> str:
    return str(path[-1]) if path else "the file"
