"""`offkey serve`."""

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (OFFKEY_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port, 0 for a free one (OFFKEY_PORT).")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the store (OFFKEY_DATA_DIR).")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the model bundle (OFFKEY_BUNDLE).")] = None,
    device: Annotated[
        str | None, typer.Option(help="Processor for the model: auto, cpu, cuda or tensorrt (OFFKEY_DEVICE).")
    ] = None,
) -> None:
    """Run the service until SIGTERM or Ctrl-C. Every setting is also an environment variable OFFKEY_*."""
    from service.cli.server import run, settings_from, unknown_settings  # here: needs `offkey[service]`

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    for message in unknown_settings(dict(os.environ)):
        logging.getLogger("offkey").warning(message)
    options = {"host": host, "port": port, "data_dir": data_dir, "bundle": bundle, "device": device}
    raise SystemExit(run(settings_from(options)))
