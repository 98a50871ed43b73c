"""Run the service in this process, from its settings to the exit status."""

import asyncio
import gc
import logging
import os
import signal
from contextlib import suppress
from difflib import get_close_matches
from socket import socket
from typing import TYPE_CHECKING, Any

import uvicorn
from pydantic import ValidationError
from pydantic_settings import SettingsError
from threadpoolctl import threadpool_limits

from offkey.errors import OffkeyError
from service.encoder.bundle import BundleError
from service.settings import Limits, Settings

if TYPE_CHECKING:
    from service.jobs.runner import JobRunner
    from service.usecases.admission import Admission

logger = logging.getLogger("offkey")

_ANSWER_SECONDS = 2  # part of the time for shutting down, for responses to unfinished requests
_NO_SETTINGS = {
    "OFFKEY_KEY",
    "OFFKEY_URL",
    "OFFKEY_SHARED",
    "OFFKEY_TORTURE",
    "OFFKEY_KILLS",
}  # the client commands and the tests read them


def settings_from(options: dict[str, Any]) -> Settings:
    """Return the settings of the environment, with the options of the command line over them.

    Raises:
        SystemExit: a setting cannot be used.
    """
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        problems = "; ".join(f"{_variable(e['loc'])}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors())
        raise SystemExit(f"offkey: the settings cannot be used. {problems}") from error
    except SettingsError as error:
        raise SystemExit(
            "offkey: OFFKEY_LIMITS is not JSON. Write it as OFFKEY_LIMITS='{\"max_body_bytes\": 50000000}'."
        ) from error


def _variable(location: tuple[int | str, ...]) -> str:
    """Return the name of a variable as it is set. A limit is a field of OFFKEY_LIMITS."""
    name, *fields = map(str, location)
    return ".".join([f"OFFKEY_{name.upper()}", *fields])


def run(settings: Settings) -> int:
    """Serve until a signal; return the exit status."""
    from service.app import create_app
    from service.audio.processes import ForkServerError
    from service.encoder.session import DeviceError
    from service.http.protocol import bounded_protocol
    from service.usecases.authenticate import OpenToNetworkError
    from service.usecases.service import Service

    try:
        service = Service.open(settings)
    except (BundleError, DeviceError, ForkServerError, OpenToNetworkError) as error:
        logger.critical("the service cannot start: %s", error)
        return 1
    except (OSError, OffkeyError) as error:
        logger.critical("the store in %s cannot be opened: %s", settings.data_dir.resolve(), error)
        return 1
    # The workers are the parallelism. A BLAS with its own threads would take cores from them.
    threadpool_limits(1, user_api="blas")
    # What is loaded so far stays. Each collection that visited it would pause every request.
    gc.collect()
    gc.freeze()
    application = create_app(service)
    runner = application.state.runner
    limits = settings.limits
    server = _Server(
        uvicorn.Config(
            application,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            http=bounded_protocol(limits.max_header_bytes, limits.max_header_seconds, limits.max_body_seconds),
            timeout_graceful_shutdown=settings.shutdown_seconds - 1,
            server_header=False,
        ),
        runner,
        service.admission,
        settings.shutdown_seconds - _ANSWER_SECONDS,
    )
    # Uvicorn raises the signal again after it has drained, and an orderly end has exit status 0.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with suppress(KeyboardInterrupt):
        server.run()
    if runner.busy or service.admission.busy:
        # A thread inside one long call (a search index being built) cannot be stopped, and Python would wait for
        # it. The store loses nothing: what was acknowledged is committed, and the rest was answered 503.
        logger.warning("a job did not end in time and is abandoned")
        logging.shutdown()
        os._exit(0 if server.started else 1)
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    """Uvicorn that lets the application answer open requests before it cancels them."""

    def __init__(
        self, config: uvicorn.Config, runner: "JobRunner", admission: "Admission", grace_seconds: float
    ) -> None:
        super().__init__(config)
        self._runner = runner
        self._admission = admission
        self._grace_seconds = grace_seconds

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Let requests run for the grace period, then have the application answer them with 503."""
        loop = asyncio.get_running_loop()
        self._runner.stop()
        for pool in self._admission:
            loop.call_later(self._grace_seconds, pool.stop)
        await super().shutdown(sockets)


def unknown_settings(environ: dict[str, str]) -> list[str]:
    """Return a warning for each variable OFFKEY_* that is no setting, with the setting of the closest name."""
    known = {f"OFFKEY_{name}".upper() for name in Settings.model_fields}
    unknown = [name for name in sorted(environ) if name.startswith("OFFKEY_") and name not in known | _NO_SETTINGS]
    return [f"{name} is no setting and is ignored{_hint(name, known)}" for name in unknown]


def _hint(name: str, known: set[str]) -> str:
    limit = name.removeprefix("OFFKEY_").lower()
    if limit in Limits.model_fields:
        return f"; it is a limit: OFFKEY_LIMITS='{{\"{limit}\": ...}}'"
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
