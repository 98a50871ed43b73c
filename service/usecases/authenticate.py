"""Lets a caller in, or not."""

import ipaddress
import logging
import math
import socket
from dataclasses import replace

from offkey.errors import ErrorKind, OffkeyError
from offkey.keys import Token
from service.domain.access import ANONYMOUS, Caller
from service.domain.rate import RateLimiter
from service.settings import Settings
from service.store import KeyRecord, Store

logger = logging.getLogger(__name__)

_HOW = (
    "Send one as `Authorization: Bearer offkey_...` (the offkey command takes it from OFFKEY_KEY); an administrator "
    "makes it with `offkey keys create`."
)


class OpenToNetworkError(Exception):
    """The service would be open to the network, and nobody said that it should be."""


class Authenticator:
    """Tells who a caller is by the key that is sent.

    A revoked key opens nothing from the next request on.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        """Decide whether keys are needed.

        Raises:
            OpenToNetworkError: there is no key, and others than this computer could reach the service.
        """
        self._keys = store.keys
        self._limiter = RateLimiter()
        self._open = not self._keys.exist()
        if not self._open or is_loopback(settings.host):
            return
        if not settings.open_to_network:
            raise OpenToNetworkError(
                f"There is no key, so whoever reaches {settings.host} could enroll, delete and score. Make a key first "
                "(`offkey keys create NAME --scope admin`), or listen on 127.0.0.1 (OFFKEY_HOST), or set "
                "OFFKEY_OPEN_TO_NETWORK=true if everybody on the network shall be let in."
            )
        logger.warning("there is no key, so everybody who reaches %s is let in", settings.host)

    @property
    def is_open(self) -> bool:
        """Whether there is no key, and everybody who reaches the service is let in."""
        if self._open:  # once there is a key, it stays so
            self._open = not self._keys.exist()
        return self._open

    def recognize(self, sent: str | None, request_id: str) -> Caller | None:
        """As `admit`, but without waiting for the store; None: it has to be asked.

        Raises:
            OffkeyError: the key is over its rate.
        """
        if self._keys.none_exists:
            return replace(ANONYMOUS, request_id=request_id)
        token = None if sent is None else Token.parse(sent)
        key = None if token is None else self._keys.recall(token)
        return None if key is None else self._caller(key, request_id)

    def admit(self, sent: str | None, request_id: str) -> Caller:
        """Tell who sends `sent`, the text of a key.

        Raises:
            OffkeyError: a key is needed and none is sent, it is not known or was revoked, or it is over its rate.
        """
        if self.is_open:
            return replace(ANONYMOUS, request_id=request_id)
        if sent is None:
            raise OffkeyError(ErrorKind.UNAUTHENTICATED, f"No key was sent. {_HOW}")
        token = Token.parse(sent)
        key = None if token is None else self._keys.find(token)
        if key is None:
            raise OffkeyError(ErrorKind.UNAUTHENTICATED, f"The key is not known, or was revoked. {_HOW}")
        return self._caller(key, request_id)

    def _caller(self, key: KeyRecord, request_id: str) -> Caller:
        if key.rate_per_minute is not None:
            self._check_rate(key.key_id, key.name, key.rate_per_minute)
        return Caller(key.name, key.key_id, key.scopes, key.machine_prefix, request_id)

    def _check_rate(self, key_id: str, name: str, per_minute: int) -> None:
        wait = math.ceil(self._limiter.take(key_id, per_minute))
        if wait:
            raise OffkeyError(
                ErrorKind.RATE_LIMITED,
                f"The key {name!r} may make {per_minute} requests a minute. Send it again in {wait} s.",
                rate_per_minute=per_minute,
                retry_after=wait,
            )


def is_loopback(host: str) -> bool:
    """Whether only this computer can reach what listens on `host`. A name counts by all its addresses."""
    try:
        found = {address[0] for *_, address in socket.getaddrinfo(host, None)} if host else set()
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(address).is_loopback for address in found)
