"""Pickles that only this app can have made. Nothing is loaded before its signature has been verified."""

import hashlib
import hmac
import pickle
from collections.abc import Sequence
from typing import Final

from hookware.errors import InvalidTaskError, PermanentTaskFailure, describe

MAGIC: Final = b"hookware-pickle-1:"
"""How every signed pickle begins."""

_SIGNATURE_BYTES: Final = hashlib.sha256().digest_size


def dumps(value: object, keys: Sequence[bytes], context: bytes) -> bytes:
    """Pickle a value, signed with the first key for this context alone.

    Raises:
        InvalidTaskError: it cannot be pickled.
    """
    try:
        pickled = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise InvalidTaskError(f"the function or an argument of it cannot be pickled: {describe(error)}") from error
    return MAGIC + _signature(pickled, keys[0], context) + pickled


def loads(signed: bytes, keys: Sequence[bytes], context: bytes) -> object:
    """Give a value back, once one of the keys has verified its signature.

    Raises:
        PermanentTaskFailure: the signature is wrong, and nothing was loaded; or the value cannot be loaded.
    """
    start = len(MAGIC) + _SIGNATURE_BYTES
    signature, pickled = signed[len(MAGIC) : start], signed[start:]
    if not signed.startswith(MAGIC) or not _is_ours(signature, pickled, keys, context):
        raise PermanentTaskFailure(
            "the signature of the pickled call is wrong, so nothing of it was loaded: it was changed, belongs to "
            "another task, or was signed with a key that is not in deferred_pickle_key="
        )
    try:
        return pickle.loads(pickled)  # noqa: S301 - verified above
    except Exception as error:
        raise PermanentTaskFailure(f"the pickled call cannot be loaded: {describe(error)}") from error


def _is_ours(signature: bytes, pickled: bytes, keys: Sequence[bytes], context: bytes) -> bool:
    return any(hmac.compare_digest(_signature(pickled, key, context), signature) for key in keys)


def _signature(pickled: bytes, key: bytes, context: bytes) -> bytes:
    # The length tells where the context ends, so that no byte of it can pass for one of the pickle.
    head = MAGIC + len(context).to_bytes(4, "big") + context
    return hmac.digest(key, head + pickled, hashlib.sha256)
