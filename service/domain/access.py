"""Decide what the caller of a request may do."""

from dataclasses import dataclass

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import ANONYMOUS_NAME, COMMAND_LINE_NAME, Scope

# The guard and feedback report scores to whoever enrolls, so a key that enrolls but may not score would hide nothing.
_IMPLIED = {
    Scope.SCORE: frozenset({Scope.SCORE}),
    Scope.ENROLL: frozenset({Scope.ENROLL, Scope.SCORE}),
    Scope.ADMIN: frozenset(Scope),
}


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
        if not any(needed in _IMPLIED[scope] for scope in self.scopes):
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


COMMAND_LINE = Caller(COMMAND_LINE_NAME)
ANONYMOUS = Caller(ANONYMOUS_NAME)
