"""How often may a queue start a task: a token bucket in whole numbers, so that nothing drifts.

A bucket holds up to `size` tokens, is refilled evenly at `rate` tokens per second, and each start takes one.
Source: App Engine's `rate` and `bucket_size`.
"""

from dataclasses import dataclass

TOKEN = 10**12
"""One token in the unit that a bucket counts in; a BIGINT holds nine million of them."""

_SECOND_US = 1_000_000
_MOST_AHEAD_US = 60 * _SECOND_US


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """What a bucket held (in units of a `TOKEN`-th) at a time; both are whole numbers, to be stored as they are."""

    tokens: int
    refilled_us: int


def full(size: int, now_us: int) -> Bucket:
    """Give the bucket of a queue that has started nothing yet."""
    return Bucket(tokens=_capacity(size), refilled_us=now_us)


def refill(bucket: Bucket, rate: float, size: int, now_us: int) -> Bucket:
    """Give what is in the bucket now. A clock that went back gives nothing, and what it then counts again neither.

    But one that went back by more than a minute had been wrong: then there is a token, and the next ones from now on.
    The time since the last refill counts by the `rate` of now: that of a queue may change at any time.
    """
    if _is_ahead(bucket, now_us):
        return Bucket(tokens=max(TOKEN, min(_capacity(size), bucket.tokens)), refilled_us=now_us)
    elapsed_us = max(0, now_us - bucket.refilled_us)
    numerator, denominator = max(0.0, rate).as_integer_ratio()
    gained = numerator * elapsed_us * (TOKEN // _SECOND_US) // denominator
    return Bucket(tokens=min(_capacity(size), bucket.tokens + gained), refilled_us=bucket.refilled_us + elapsed_us)


def available(bucket: Bucket, rate: float, size: int, now_us: int) -> int:
    """Say how many tasks may start now; a rate of 0 lets none start, whatever is in the bucket."""
    if rate <= 0:
        return 0
    return max(0, refill(bucket, rate, size, now_us).tokens // TOKEN)


def take(bucket: Bucket, count: int, rate: float, size: int, now_us: int) -> Bucket:
    """Give the bucket after `count` tasks have started; they may be no more than are available.

    Raises:
        ValueError: they are more.
    """
    most = available(bucket, rate, size, now_us)
    if not 0 <= count <= most:
        raise ValueError(f"{count} tokens are taken where {most} are available: ask for what is available first")
    now = refill(bucket, rate, size, now_us)
    return Bucket(tokens=now.tokens - count * TOKEN, refilled_us=now.refilled_us)


def ready_us(bucket: Bucket, rate: float, size: int, now_us: int) -> int | None:
    """Say in how many microseconds a task may start; 0: now, None: not before the rate changes."""
    if rate <= 0:
        return None
    missing = TOKEN - min(_capacity(size), bucket.tokens)
    if missing <= 0 or _is_ahead(bucket, now_us):
        return 0
    numerator, denominator = rate.as_integer_ratio()
    wait_us = -(-missing * denominator // (numerator * (TOKEN // _SECOND_US)))
    return max(0, bucket.refilled_us + wait_us - now_us)


def _is_ahead(bucket: Bucket, now_us: int) -> bool:
    return bucket.refilled_us - now_us > _MOST_AHEAD_US


def _capacity(size: int) -> int:
    """A bucket that cannot hold one token would never give one: the smallest size is 1."""
    return max(1, size) * TOKEN
