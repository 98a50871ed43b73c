"""`offkey keys create`, `list` and `revoke`, for a running service or for the data folder of a stopped one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from offkey import Client, ErrorKind, Key, KeySettings, OffkeyError, Scope
from offkey.keys import check_key_id
from service.cli.common import plain

if TYPE_CHECKING:
    from service.store import Store

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke the API keys of a service.")

Url = Annotated[
    str | None,
    typer.Option(
        "--url", envvar="OFFKEY_URL", help="Address of a running service; OFFKEY_KEY has an administrator's key."
    ),
]
DataDir = Annotated[
    Path, typer.Option(help="Folder of a stopped service's store, used without --url.", envvar="OFFKEY_DATA_DIR")
]

_DATA = Path("data")
_PAGE = 1_000


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the key in the audit log.")],
    scope: Annotated[list[Scope], typer.Option(help="Permission; enroll includes score, admin includes both.")],
    machine_prefix: Annotated[
        str | None, typer.Option(help="Beginning of the machine ids that the key may use; otherwise all.")
    ] = None,
    rate: Annotated[int | None, typer.Option(help="Limit in requests a minute; otherwise none.")] = None,
    url: Url = None,
    data_dir: DataDir = _DATA,
) -> None:
    """Create a key and print it. Only its hash is stored, so it cannot be printed again."""
    try:
        settings = KeySettings(name=name, scopes=scope, machine_prefix=machine_prefix, rate_per_minute=rate)
    except ValidationError as error:
        raise typer.BadParameter("; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())) from error
    if url is not None:
        with Client(url) as client:
            made = client.create_key(name, scope, machine_prefix=machine_prefix, rate_per_minute=rate)
    else:
        from service.usecases.keys import create_key  # here: needs `offkey[service]`

        with _stopped(data_dir) as store:
            made = create_key(store, settings)
    typer.echo(f"Key {made.key_id} is created. It is not shown again, so store it now:", err=True)
    typer.echo(made.key)


@app.command("list")
def list_keys(url: Url = None, data_dir: DataDir = _DATA) -> None:
    """List the keys, without their secrets."""
    if url is not None:
        with Client(url) as client:
            found = list(client.api_keys())
    else:
        with _stopped(_existing(data_dir)) as store:
            found = list(_all(store))
    table = Table()
    table.add_column("key id", no_wrap=True)
    for column in ("name", "scopes", "machines"):
        table.add_column(column)
    table.add_column("requests a minute", justify="right")
    for column in ("created", "revoked"):
        table.add_column(column)
    for key in sorted(found, key=lambda key: key.created_at):
        table.add_row(
            key.key_id,
            plain(key.name),
            " ".join(key.scopes),
            "all" if key.machine_prefix is None else plain(f"{key.machine_prefix}*"),
            "any" if key.rate_per_minute is None else str(key.rate_per_minute),
            f"{key.created_at:%Y-%m-%d %H:%M}",
            "" if key.revoked_at is None else f"{key.revoked_at:%Y-%m-%d %H:%M}",
        )
    Console().print(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key: the part between `offkey_` and the next `_`.")],
    url: Url = None,
    data_dir: DataDir = _DATA,
) -> None:
    """Revoke a key. It is refused from the next request on."""
    check_key_id(key_id)
    if url is not None:
        with Client(url) as client:
            client.revoke_key(key_id)
    else:
        from service.usecases.keys import revoke_key

        with _stopped(_existing(data_dir)) as store:
            revoke_key(store, key_id)
    typer.echo(f"Key {key_id} is revoked.")


def _all(store: "Store") -> Iterator[Key]:
    from service.usecases.keys import list_keys

    after: str | None = ""
    while after is not None:
        page = list_keys(store, after, _PAGE)
        yield from page.keys
        after = page.next_after


def _existing(data_dir: Path) -> Path:
    from service.store.database.sqlite import DATABASE_FILE

    if not (data_dir / DATABASE_FILE).exists():
        raise FileNotFoundError(f"There is no store in {data_dir}. Name its folder with --data-dir, or use --url.")
    return data_dir


@contextmanager
def _stopped(data_dir: Path) -> "Iterator[Store]":
    from service.store import Store

    try:
        store = Store.open(data_dir)
    except OffkeyError as error:
        if error.kind is not ErrorKind.STORE_BUSY:
            raise
        raise OffkeyError(error.kind, f"{error.detail} If the service runs, use --url ADDRESS.") from error
    try:
        yield store
    finally:
        store.close()
