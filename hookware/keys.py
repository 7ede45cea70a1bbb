"""What a task's priority and keys mean: the rules for the arguments that App Engine did not have."""

from typing import Final, Literal

from hookware.core.queue import MAX_PRIORITY
from hookware.core.task import NO_KEYS, PULL, Keys
from hookware.errors import InvalidTaskError

MAX_KEY_LENGTH: Final = 500
MAX_DEBOUNCE_SECONDS: Final = 30 * 86_400

OnConflict = Literal["skip", "replace", "raise"]
_ON_CONFLICT: Final = ("skip", "replace", "raise")


def checked_keys(
    *,
    method: str,
    priority: int,
    key: str | None,
    on_conflict: OnConflict | None,
    debounce: float | None,
    fair_key: str | None,
    limit_key: str | None,
) -> Keys:
    """Give what a task has in common with others; raise InvalidTaskError where an argument breaks a rule."""
    given = {"key": key, "fair_key": fair_key, "limit_key": limit_key}
    for name, value in given.items():
        _check_key(name, value)
    _check_priority(priority)
    if on_conflict is not None and on_conflict not in _ON_CONFLICT:
        raise InvalidTaskError(f"on_conflict={on_conflict!r}: use one of {', '.join(map(repr, _ON_CONFLICT))}")
    if key is None and (on_conflict is not None or debounce is not None):
        raise InvalidTaskError("on_conflict= and debounce= say what happens to tasks with one key: give key=, too")
    if debounce is not None:
        on_conflict = _debounced(debounce, on_conflict)
    if priority == 0 and not any(value is not None for value in given.values()):
        return NO_KEYS
    if method == PULL:
        raise InvalidTaskError("a pull task has no priority and no keys: they say what hookware runs, and when")
    return Keys(
        priority=priority, dedup_key=key, on_conflict=on_conflict or "skip", fair_key=fair_key, limit_key=limit_key
    )


def with_debounce(debounce: float | None, countdown: float | str | None, eta: object) -> float | str | None:
    """Give the countdown of a task: with `debounce`, that many seconds."""
    if debounce is None:
        return countdown
    if countdown is not None or eta is not None:
        raise InvalidTaskError("debounce= is a countdown that begins anew with each add: leave countdown= and eta= out")
    return debounce


def _check_key(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_KEY_LENGTH or "\0" in value or not _encodable(value):
        raise InvalidTaskError(
            f"{name} must be a text of 1 to {MAX_KEY_LENGTH} characters without NUL, got {str(value)[:100]!r}: "
            "shorten it, or use a hash of it"
        )


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_priority(priority: object) -> None:
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) > MAX_PRIORITY:
        raise InvalidTaskError(
            f"priority must be a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}, got {priority!r}; "
            "the higher one begins first"
        )


def _debounced(debounce: object, on_conflict: OnConflict | None) -> OnConflict:
    in_range = isinstance(debounce, int | float) and not isinstance(debounce, bool)
    if not in_range or not 0 < debounce <= MAX_DEBOUNCE_SECONDS:  # type: ignore[operator]  # a number
        raise InvalidTaskError(
            f"debounce must be a number of seconds above 0, at most {MAX_DEBOUNCE_SECONDS} (30 days), got {debounce!r}"
        )
    if on_conflict not in {None, "replace"}:
        raise InvalidTaskError(
            f"debounce= lets the last of several tasks run; it cannot go with on_conflict={on_conflict!r}: leave it out"
        )
    return "replace"
