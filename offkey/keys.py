"""Read and create the text of API keys: `offkey_<key id>_<secret>`."""

import hashlib
import re
import secrets
from typing import NamedTuple

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import KEY_ID_PATTERN

_TOKEN = re.compile(r"offkey_([0-9a-f]{12})_([0-9a-f]{64})", re.ASCII)
_ID_BYTES = 6
_SECRET_BYTES = 32


class Token(NamedTuple):
    """Text of a key: the id by which its record is found, and the secret that proves it."""

    key_id: str
    secret: str

    @classmethod
    def new(cls) -> "Token":
        """Create a key of 256 random bits."""
        return cls(secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> "Token | None":
        """Read a key from text. None if the text has another form."""
        found = _TOKEN.fullmatch(text)
        return None if found is None else cls(*found.groups())

    @property
    def text(self) -> str:
        """The key as a client sends it."""
        return f"offkey_{self.key_id}_{self.secret}"

    @property
    def secret_sha256(self) -> str:
        """Hash of the secret, the only form that is stored. A hash of 256 random bits cannot be guessed back."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


def check_key_id(key_id: str) -> str:
    """Return `key_id` unchanged. Raises `OffkeyError` (unknown key) if no key can have it."""
    if re.fullmatch(KEY_ID_PATTERN.removesuffix("$"), key_id, re.ASCII) is None:
        raise OffkeyError(
            ErrorKind.UNKNOWN_KEY,
            "This is no key id. A key id has 12 characters, 0 to 9 and a to f: the middle of offkey_<key id>_<secret>.",
        )
    return key_id
