"""Encryption of payloads in the database: a codec for `Hookware(codec=...)`. It needs `hookware[encryption]`.

What is stored: one byte of version, the length and the text of the key's id, 12 random bytes, the ciphertext and its
tag. All of the head, the task's id and its queue are authenticated with it, so a row's body is good for that row only.
"""

from collections.abc import Mapping
from typing import Final

from hookware.core.codec import TaskIdentity
from hookware.env import new_nonce
from hookware.errors import ConfigurationError, PermanentTaskFailure

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError as error:
    raise ImportError(
        'encryption needs cryptography: pip install "hookware[encryption]"', name="cryptography"
    ) from error

_VERSION: Final = 1
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_MOST_ID_BYTES: Final = 100


class AesGcm:
    """Encrypts payloads with AES-256-GCM.

    Args:
        keys: keys of 32 random bytes by their ids, such as {"2026": key}. The first one encrypts, all decrypt: to
            rotate, put a new one first, and drop the old one when its last task is gone. Ids are stored in clear.

    Raises:
        ConfigurationError: there is no key, a key is not of 32 bytes, or an id is not 1 to 100 printable ASCII
            characters.
    """

    __slots__ = ("_first", "_keys")

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        given: object = keys
        if not isinstance(given, Mapping) or not given:
            raise ConfigurationError('AesGcm takes at least one key by its id: write AesGcm({"2026": key})')
        self._keys = {_checked_id(key_id): _cipher(key_id, key) for key_id, key in keys.items()}
        self._first = next(iter(self._keys))

    def __repr__(self) -> str:
        return f"AesGcm(keys: {', '.join(self._keys)})"

    @property
    def name(self) -> str:
        """What rows call it."""
        return "aes-256-gcm"

    def encode(self, body: bytes, task: TaskIdentity) -> bytes:
        """Encrypt a body for this task alone."""
        key_id = self._first.encode()
        head = bytes([_VERSION, len(key_id)]) + key_id
        nonce = new_nonce(_NONCE_BYTES)
        return head + nonce + self._keys[self._first].encrypt(nonce, body, _bound(head, task))

    def decode(self, body: bytes, task: TaskIdentity) -> bytes:
        """Decrypt the body of this task.

        Raises:
            PermanentTaskFailure: it was changed, belongs to another task, or another key has this id now.
            ConfigurationError: its key is not among the keys: tried again, because a deploy may bring it.
        """
        head_length = 2 + body[1] if len(body) > 1 else 0
        if len(body) < head_length + _NONCE_BYTES + _TAG_BYTES or not head_length or body[0] != _VERSION:
            raise PermanentTaskFailure("the stored payload is not one that AesGcm made: the row was changed")
        head, sealed = body[:head_length], body[head_length:]
        key_id = head[2:].decode("ascii", "backslashreplace")
        cipher = self._keys.get(key_id)
        if cipher is None:
            raise ConfigurationError(
                f"the payload is encrypted with the key {key_id!r}, which is not among those of AesGcm "
                f"({', '.join(self._keys)}): add it, and the next attempt or lease can read it"
            )
        try:
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound(head, task))
        except InvalidTag:
            raise PermanentTaskFailure(
                f"the payload cannot be decrypted with the key {key_id!r}: it was changed or moved here from another "
                "task, or another key has this id now"
            ) from None


def _bound(head: bytes, task: TaskIdentity) -> bytes:
    """Give what is authenticated besides the payload; only the queue's name, at the end, has no fixed length."""
    return head + task.id.to_bytes(8, "big") + task.queue_name.encode()


def _checked_id(key_id: object) -> str:
    if not isinstance(key_id, str) or not 0 < len(key_id) <= _MOST_ID_BYTES or not key_id.isascii():
        raise ConfigurationError(f"the id of a key must be 1 to {_MOST_ID_BYTES} ASCII characters, got {key_id!r:.200}")
    if not key_id.isprintable():
        raise ConfigurationError(f"the id of a key must be printable, got {key_id!r}")
    return key_id


def _cipher(key_id: str, key: object) -> AESGCM:
    if not isinstance(key, bytes) or len(key) != _KEY_BYTES:
        got = f"{len(key)} bytes" if isinstance(key, bytes) else type(key).__name__
        raise ConfigurationError(
            f"the key {key_id!r} must have {_KEY_BYTES} bytes, got {got}: make one with "
            f"secrets.token_bytes({_KEY_BYTES})"
        )
    return AESGCM(key)
