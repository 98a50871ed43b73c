"""Access rights: scopes, the secret of a key, and the caller of a request."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from offkey.errors import ErrorKind, OffkeyError

KEY_ID_PATTERN = r"^[0-9a-f]{12}$"
KEY_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}$"
MACHINE_PREFIX_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"  # beginning of a machine id

_TOKEN = re.compile(r"offkey_([0-9a-f]{12})_([0-9a-f]{64})", re.ASCII)
_ID_BYTES = 6
_SECRET_BYTES = 32


class Scope(StrEnum):
    """Operations that a key allows."""

    SCORE = "score"  # score clips; see machines, clips, thresholds, limits and metrics
    ENROLL = "enroll"  # and create machines, enroll, give feedback, take clips out again
    ADMIN = "admin"  # and choose thresholds, delete machines, manage keys, read the audit log


# Enrollment and feedback return scores, so a key for enrollment alone could not hide them.
_GIVES = {
    Scope.SCORE: frozenset({Scope.SCORE}),
    Scope.ENROLL: frozenset({Scope.ENROLL, Scope.SCORE}),
    Scope.ADMIN: frozenset(Scope),
}


class Token(NamedTuple):
    """Credentials of a request: the key id and the secret."""

    key_id: str
    secret: str

    @classmethod
    def new(cls) -> "Token":
        """Draw a new key id and a secret of 256 random bits."""
        return cls(secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> "Token | None":
        """Parse the output of `text`. Returns None if it has another form."""
        found = _TOKEN.fullmatch(text)
        return None if found is None else cls(*found.groups())

    @property
    def text(self) -> str:
        """The token in the form that clients send."""
        return f"offkey_{self.key_id}_{self.secret}"

    @property
    def secret_sha256(self) -> str:
        """The stored hash of the secret. A plain hash is enough, because 256 random bits cannot be guessed."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


def check_key_id(key_id: str) -> str:
    """Return `key_id` unchanged. Raises `OffkeyError` (unknown key) if no key can have it."""
    if re.fullmatch(KEY_ID_PATTERN.removesuffix("$"), key_id, re.ASCII) is None:
        raise OffkeyError(
            ErrorKind.UNKNOWN_KEY,
            "That is no key id. It has 12 characters, 0 to 9 and a to f: the middle of offkey_<key id>_<secret>.",
        )
    return key_id


@dataclass(frozen=True)
class Caller:
    """The person or program that an operation is done for.

    Attributes:
        name: key name, or another name for the audit log.
        key_id: key id, None without a key.
        scopes: scopes of the key, without those that they imply.
        machine_prefix: common beginning of the ids of all machines that are accessible, None if all are.
        request_id: request id, None outside of a request.
    """

    name: str
    key_id: str | None = None
    scopes: frozenset[Scope] = frozenset({Scope.ADMIN})
    machine_prefix: str | None = None
    request_id: str | None = None

    def check_scope(self, needed: Scope) -> None:
        """Raise `OffkeyError` (forbidden) if the key does not include this scope."""
        if not any(needed in _GIVES[scope] for scope in self.scopes):
            raise OffkeyError(
                ErrorKind.FORBIDDEN,
                f"The key {self.name!r} has the scope {' '.join(sorted(self.scopes))}; this needs {needed}. Use "
                "another key, or have an administrator make one.",
                needed_scope=needed.value,
            )

    def check_whole_service(self) -> None:
        """Raise `OffkeyError` (forbidden) if the key has a machine prefix."""
        if self.machine_prefix is not None:
            raise OffkeyError(
                ErrorKind.FORBIDDEN,
                f"The key {self.name!r} is for machines whose id begins with {self.machine_prefix!r}; this is about "
                "the whole service. Use a key without a machine prefix.",
                machine_prefix=self.machine_prefix,
            )

    def check_machine(self, machine_id: str) -> None:
        """Raise `OffkeyError` (forbidden) if the key excludes this machine, whether or not the machine exists."""
        if not machine_id.startswith(self.machine_prefix or ""):
            raise OffkeyError(
                ErrorKind.FORBIDDEN,
                f"The key {self.name!r} is for machines whose id begins with {self.machine_prefix!r}. Use another key, "
                "or check the machine id.",
                machine_prefix=str(self.machine_prefix),
            )


COMMAND_LINE = Caller("command line")
ANONYMOUS = Caller("anonymous")
