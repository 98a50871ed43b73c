"""Who may do what: scopes, the secret of a key, and the caller of a request."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from offkey.errors import ErrorKind, OffkeyError

KEY_ID_PATTERN = r"^[0-9a-f]{12}$"
KEY_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}$"
MACHINE_PREFIX_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"  # what a machine id can begin with

_TOKEN = re.compile(r"offkey_([0-9a-f]{12})_([0-9a-f]{64})", re.ASCII)
_ID_BYTES = 6
_SECRET_BYTES = 32


class Scope(StrEnum):
    """What a key is good for."""

    SCORE = "score"  # score clips; see machines, clips, thresholds, limits and metrics
    ENROLL = "enroll"  # and create machines, enroll, give feedback, take clips out again
    ADMIN = "admin"  # and choose thresholds, delete machines, manage keys, read the audit log


# Who enrolls is told scores by the guard and by feedback, so a key that enrolls but may not score would hide nothing.
_GIVES = {
    Scope.SCORE: frozenset({Scope.SCORE}),
    Scope.ENROLL: frozenset({Scope.ENROLL, Scope.SCORE}),
    Scope.ADMIN: frozenset(Scope),
}


class Token(NamedTuple):
    """What a client sends: the id by which its key is found, and the secret that proves it."""

    key_id: str
    secret: str

    @classmethod
    def new(cls) -> "Token":
        """A key that nobody has seen, of 256 random bits."""
        return cls(secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> "Token | None":
        """Read what `text` wrote; None if it is not of that form."""
        found = _TOKEN.fullmatch(text)
        return None if found is None else cls(*found.groups())

    @property
    def text(self) -> str:
        """As a client sends it."""
        return f"offkey_{self.key_id}_{self.secret}"

    @property
    def secret_sha256(self) -> str:
        """All that is kept of the secret. Of 256 random bits a plain hash cannot be undone by guessing."""
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
    """On whose behalf something is done.

    Attributes:
        name: of the key, or who else it is; it goes to the audit log.
        key_id: of the key; None: there is none.
        scopes: as the key has them, without what they imply.
        machine_prefix: with which the id of every machine begins that may be touched; None: all machines.
        request_id: of the request; None: it is no request.
    """

    name: str
    key_id: str | None = None
    scopes: frozenset[Scope] = frozenset({Scope.ADMIN})
    machine_prefix: str | None = None
    request_id: str | None = None

    def check_scope(self, needed: Scope) -> None:
        """Raise `OffkeyError` (forbidden) if the key is not good for it."""
        if not any(needed in _GIVES[scope] for scope in self.scopes):
            raise OffkeyError(
                ErrorKind.FORBIDDEN,
                f"The key {self.name!r} has the scope {' '.join(sorted(self.scopes))}; this needs {needed}. Use "
                "another key, or have an administrator make one.",
                needed_scope=needed.value,
            )

    def check_whole_service(self) -> None:
        """Raise `OffkeyError` (forbidden) if the key is for some machines alone."""
        if self.machine_prefix is not None:
            raise OffkeyError(
                ErrorKind.FORBIDDEN,
                f"The key {self.name!r} is for machines whose id begins with {self.machine_prefix!r}; this is about "
                "the whole service. Use a key without a machine prefix.",
                machine_prefix=self.machine_prefix,
            )

    def check_machine(self, machine_id: str) -> None:
        """Raise `OffkeyError` (forbidden) if the key is not for this machine, whether or not there is one."""
        if not machine_id.startswith(self.machine_prefix or ""):
            raise OffkeyError(
                ErrorKind.FORBIDDEN,
                f"The key {self.name!r} is for machines whose id begins with {self.machine_prefix!r}. Use another key, "
                "or check the machine id.",
                machine_prefix=str(self.machine_prefix),
            )


COMMAND_LINE = Caller("command line")
ANONYMOUS = Caller("anonymous")
