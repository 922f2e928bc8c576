"""Secrets at rest: sealed with a named key, so that keys can be rotated without reading every row at once."""

from collections.abc import Mapping
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken

_OPENED_KEPT = 512


class UnreadableSecret(Exception):
    """A sealed value names a key we do not have, or was not sealed by us."""


class Vault:
    """Seals and opens small secrets with Fernet (AES-128-CBC and HMAC-SHA256), each token prefixed with its key's id."""

    def __init__(self, keys: Mapping[str, str], *, current: str) -> None:
        """`keys` maps key ids to Fernet keys (32 bytes, URL-safe base64); new values are sealed with `current`.

        Raises:
            ValueError: a key is malformed, or `current` is not among the keys.
        """
        if current not in keys:
            raise ValueError(f"the current key id {current!r} is not among the keys")
        self._fernets = {key_id: Fernet(key.encode()) for key_id, key in keys.items()}
        self._current = current
        # The same few keys of providers, endpoints and channels are opened for each message.
        self._opened = lru_cache(maxsize=_OPENED_KEPT)(self._decrypted)

    @classmethod
    def from_setting(cls, value: str) -> "Vault":
        """Read `id:key[,id:key…]` (the first is current) or one bare Fernet key, which gets the id `k1`.

        Raises:
            ValueError: a key is malformed. The message does not contain it.
        """
        pairs = [part.strip() for part in value.split(",") if part.strip()]
        keys: dict[str, str] = {}
        for pair in pairs:
            key_id, _, key = pair.rpartition(":")
            keys[key_id or "k1"] = key
        if not keys:
            raise ValueError("REPLYLINE_SECRET_KEY is empty")
        try:
            return cls(keys, current=next(iter(keys)))
        except ValueError as error:
            raise ValueError(
                "REPLYLINE_SECRET_KEY must be a Fernet key (32 bytes, URL-safe base64), or id:key pairs joined by commas; "
                "make one with: python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
            ) from error

    @staticmethod
    def new_key() -> str:
        """A fresh key, as `from_setting` takes it."""
        return Fernet.generate_key().decode()

    def seal(self, secret: str) -> str:
        """Encrypt `secret`; the result is safe to store."""
        return f"{self._current}:{self._fernets[self._current].encrypt(secret.encode()).decode()}"

    def open(self, sealed: str) -> str:
        """Decrypt what `seal` made.

        Raises:
            UnreadableSecret: the key is not ours or the value was changed.
        """
        return self._opened(sealed)

    def _decrypted(self, sealed: str) -> str:
        key_id, _, token = sealed.partition(":")
        fernet = self._fernets.get(key_id)
        if fernet is None:
            raise UnreadableSecret(f"sealed with key {key_id!r}, which REPLYLINE_SECRET_KEY does not name")
        try:
            return fernet.decrypt(token.encode()).decode()
        except InvalidToken as error:
            raise UnreadableSecret(f"not a value sealed with key {key_id!r}") from error
