"""`offkey serve`."""

import asyncio
import gc
import logging
import os
import signal
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer
import uvicorn
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from offkey.errors import OffkeyError
from service.encoder.bundle import BundleError
from service.settings import Device, Settings

if TYPE_CHECKING:
    from service.jobs.runner import JobRunner
    from service.usecases.admission import Admission

app = typer.Typer()
logger = logging.getLogger("offkey")

_ANSWER_SECONDS = 2  # of the time for shutting down, kept for answering what was not finished
_NO_SETTINGS = {
    "OFFKEY_KEY",
    "OFFKEY_URL",
    "OFFKEY_SHARED",
    "OFFKEY_TORTURE",
    "OFFKEY_KILLS",
}  # read by the client commands and by the tests


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (OFFKEY_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port, 0 for a free one (OFFKEY_PORT).")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the store (OFFKEY_DATA_DIR).")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the model bundle (OFFKEY_BUNDLE).")] = None,
    device: Annotated[Device | None, typer.Option(help="Where the model runs (OFFKEY_DEVICE).")] = None,
) -> None:
    """Run the service until SIGTERM or Ctrl-C. Every setting is also an environment variable OFFKEY_*."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    for message in unknown_settings(dict(os.environ)):
        logger.warning(message)
    given: dict[str, Any] = {"host": host, "port": port, "data_dir": data_dir, "bundle": bundle, "device": device}
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        problems = "; ".join(f"OFFKEY_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise SystemExit(f"offkey: the settings cannot be used. {problems}") from error
    raise SystemExit(run(settings))


def run(settings: Settings) -> int:
    """Serve until a signal; return the exit status."""
    from service.app import create_app  # here, so that --help does not wait for ONNX Runtime
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
    # The workers are the parallelism: a BLAS with threads of its own would have them take cores from each other.
    threadpool_limits(1, user_api="blas")
    # What was loaded so far stays: looking through all of it again and again would hold every request for a moment.
    gc.collect()
    gc.freeze()
    application = create_app(service)
    runner = application.state.runner
    server = _Server(
        uvicorn.Config(
            application,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            http=bounded_protocol(
                settings.limits.max_header_bytes, settings.limits.max_header_seconds, settings.limits.max_body_seconds
            ),
            timeout_graceful_shutdown=settings.shutdown_seconds - 1,
            server_header=False,
        ),
        runner,
        service.admission,
        settings.shutdown_seconds - _ANSWER_SECONDS,
    )
    # Uvicorn raises the signal again once it has drained; an orderly end is not a death by signal.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with suppress(KeyboardInterrupt):
        server.run()
    if runner.busy or service.admission.busy:
        # A thread inside one long call (a search index being built) cannot be stopped, and Python would wait for
        # it. The store loses nothing: what was acknowledged is committed, what was not has been answered 503.
        logger.warning("a job did not end in time and is given up")
        logging.shutdown()
        os._exit(0 if server.started else 1)
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    """Uvicorn that has requests answered by the application before it would cancel them."""

    def __init__(
        self, config: uvicorn.Config, runner: "JobRunner", admission: "Admission", grace_seconds: float
    ) -> None:
        super().__init__(config)
        self._runner = runner
        self._admission = admission
        self._grace_seconds = grace_seconds

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Let requests run for the grace period, then have them answered 503."""
        loop = asyncio.get_running_loop()
        self._runner.stop()
        for pool in self._admission:
            loop.call_later(self._grace_seconds, pool.stop)
        await super().shutdown(sockets)


def unknown_settings(environ: dict[str, str]) -> list[str]:
    """A warning for each variable OFFKEY_* that is no setting, with the one that may have been meant."""
    known = {f"OFFKEY_{name}".upper() for name in Settings.model_fields}
    messages = []
    for name in sorted(environ):
        if name.startswith("OFFKEY_") and name not in known | _NO_SETTINGS:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            messages.append(f"{name} is no setting and is ignored{hint}")
    return messages
