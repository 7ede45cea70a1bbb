"""A token bucket in whole numbers: nothing drifts, whoever refills it and however often."""

from typing import Final, NamedTuple

SECOND_US: Final = 1_000_000
TOKEN: Final = 1_000_000
"""A whole token, in the unit in which a bucket counts."""


class Bucket(NamedTuple):
    """Tokens in millionths, as they were at `refilled_us`."""

    tokens: int
    refilled_us: int


def refilled(bucket: Bucket | None, rate: float, size: int, now_us: int) -> Bucket:
    """Give the bucket as it is now; None is a full one. A clock that goes back mints nothing."""
    full = max(1, size) * TOKEN
    if bucket is None:
        return Bucket(full, now_us)
    if now_us <= bucket.refilled_us:
        return Bucket(min(bucket.tokens, full), bucket.refilled_us)
    per_second = _per_second(rate)
    gained = (now_us - bucket.refilled_us) * per_second // SECOND_US
    if bucket.tokens + gained >= full:
        return Bucket(full, now_us)
    # What is less than the unit stays in the time: it is gained with the next refill.
    since_us = bucket.refilled_us + (gained * SECOND_US // per_second if per_second else 0)
    return Bucket(bucket.tokens + gained, since_us)


def take(bucket: Bucket, count: int) -> Bucket:
    """Give the bucket without `count` tokens."""
    return bucket._replace(tokens=bucket.tokens - count * TOKEN)


def ready_us(bucket: Bucket, rate: float) -> int | None:
    """Give when the bucket has a whole token, None if never."""
    missing, per_second = TOKEN - bucket.tokens, _per_second(rate)
    if missing <= 0:
        return bucket.refilled_us
    return None if per_second <= 0 else bucket.refilled_us - (-missing * SECOND_US // per_second)


def _per_second(rate: float) -> int:
    return int(rate * TOKEN)
