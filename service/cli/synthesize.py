"""`offkey synthesize`."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.common import progress

app = typer.Typer()


@app.command()
def synthesize(
    root: Annotated[Path, typer.Argument(help="Folder to write to; made if absent.")],
    # Typer copies a default and nothing here changes it; `None` would be a second form of "all".
    machine: Annotated[list[str], typer.Option("--machine", "-m", help="Only this machine; may be repeated.")] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Another seed gives other clips of the same machines.")] = 0,
) -> None:
    """Write the synthetic example machines as a DCASE Task 2 tree of WAV files."""
    from service.synthetic import plan_tree, write_tree  # here: needs `offkey[service]`

    try:
        clips = plan_tree(machine) if machine else plan_tree()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with progress() as bar:
        task = bar.add_task("synthesizing", total=len(clips))
        write_tree(root, clips, seed=seed, on_written=lambda _: bar.advance(task))
    typer.echo(f"{len(clips)} synthetic clips are in {root}.")
