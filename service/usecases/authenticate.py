"""Identify the caller of a request by its API key. Independent of the protocol that carries the key."""

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
from service.usecases.admission import WorkPool

logger = logging.getLogger(__name__)

_HOW = (
    "Send one as `Authorization: Bearer offkey_...` (the offkey command reads it from OFFKEY_KEY). An administrator "
    "creates it with `offkey keys create`."
)


class OpenToNetworkError(Exception):
    """The service would be open to the network without a key, and the settings do not allow that."""


class Authenticator:
    """Maps the text of a key to a caller. A revoked key is refused from the next request on."""

    def __init__(self, settings: Settings, store: Store, pool: WorkPool) -> None:
        """Check whether the service may start without a key.

        Args:
            settings: settings of the service.
            store: store of the keys.
            pool: pool whose threads read the store.

        Raises:
            OpenToNetworkError: there is no key, and other computers could reach the service.
        """
        self._keys = store.keys
        self._pool = pool
        self._limiter = RateLimiter()
        if self._keys.exist() or is_loopback(settings.host):
            return
        if not settings.open_to_network:
            raise OpenToNetworkError(
                f"There is no key, so whoever reaches {settings.host} could enroll, delete and score. Create a key "
                "first (`offkey keys create NAME --scope admin`), or listen on 127.0.0.1 (OFFKEY_HOST), or set "
                "OFFKEY_OPEN_TO_NETWORK=true to admit everybody on the network."
            )
        logger.warning("there is no key, so everybody who reaches %s is admitted", settings.host)

    async def authenticate(self, sent: str | None, request_id: str) -> Caller:
        """Return the caller of a request.

        Args:
            sent: text of the key; None if the request has none.
            request_id: id of the request, for the audit log.

        Raises:
            OffkeyError: a key is needed and none was sent; the key is unknown or revoked; its rate is exceeded; or
                the store cannot be read.
        """
        caller = self._cached(sent, request_id)
        return await self._pool.run(self._look_up, sent, request_id) if caller is None else caller

    def _cached(self, sent: str | None, request_id: str) -> Caller | None:
        """Return the caller if the key cache is current; None if the store must be read."""
        if self._keys.none_exists:
            return replace(ANONYMOUS, request_id=request_id)
        token = None if sent is None else Token.parse(sent)
        key = None if token is None else self._keys.cached(token)
        return None if key is None else self._caller(key, request_id)

    def _look_up(self, sent: str | None, request_id: str) -> Caller:
        if not self._keys.exist():
            return replace(ANONYMOUS, request_id=request_id)
        if sent is None:
            raise OffkeyError(ErrorKind.UNAUTHENTICATED, f"No key was sent. {_HOW}")
        token = Token.parse(sent)
        key = None if token is None else self._keys.find(token)
        if key is None:
            raise OffkeyError(ErrorKind.UNAUTHENTICATED, f"The key is unknown or was revoked. {_HOW}")
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
