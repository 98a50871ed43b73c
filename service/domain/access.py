"""Decide what the caller of a request may do."""

from dataclasses import dataclass

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import ANONYMOUS_NAME, COMMAND_LINE_NAME, Scope

# Enrollment and feedback return scores, so a key for enrollment alone could not hide them.
_IMPLIED = {
    Scope.SCORE: frozenset({Scope.SCORE}),
    Scope.ENROLL: frozenset({Scope.ENROLL, Scope.SCORE}),
    Scope.ADMIN: frozenset(Scope),
}


@dataclass(frozen=True)
class Caller:
    """The person or program that an operation is done for.

    Attributes:
        name: key name, or another name for the audit log.
        key_id: key id, None without a key.
        scopes: scopes of the key, without those that they imply.
        machine_prefix: common beginning of the ids of all accessible machines, None if all are accessible.
        request_id: request id, None outside of a request.
    """

    name: str
    key_id: str | None = None
    scopes: frozenset[Scope] = frozenset({Scope.ADMIN})
    machine_prefix: str | None = None
    request_id: str | None = None

    def check_scope(self, needed: Scope) -> None:
        """Raise `OffkeyError` (forbidden) if the key does not include this scope."""
        if not any(needed in _IMPLIED[scope] for scope in self.scopes):
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
                f"The key {self.name!r} is for machines whose id begins with {self.machine_prefix!r}; this request "
                "concerns the whole service. Use a key without a machine prefix.",
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


COMMAND_LINE = Caller(COMMAND_LINE_NAME)
ANONYMOUS = Caller(ANONYMOUS_NAME)
