"""`offkey threshold`."""

from typing import Annotated

import typer

from offkey.client import Client
from offkey.schemas import ThresholdSettings
from offkey.vocabulary import Rule
from service.cli.clips import promise
from service.cli.common import URL, MachineId, Url

app = typer.Typer()


@app.command()
def threshold(
    machine: MachineId,
    rate: Annotated[
        float | None, typer.Option("--false-alarm-rate", help="Share of healthy clips that may raise an alarm.")
    ] = None,
    gamma: Annotated[
        bool, typer.Option("--gamma", help="By a fitted gamma distribution, as the DCASE baselines.")
    ] = False,
    value: Annotated[float | None, typer.Option(help="The threshold itself.")] = None,
    default: Annotated[bool, typer.Option("--default", help="Back to the service's default.")] = False,
    url: Url = URL,
) -> None:
    """Show a machine's decision threshold, or choose another; nothing is enrolled again."""
    if default and (gamma or rate is not None or value is not None):
        raise typer.BadParameter("--default goes alone.")
    if value is not None and (gamma or rate is not None):
        raise typer.BadParameter("--value goes alone.")
    if rate is not None and not 0 < rate < 1:
        raise typer.BadParameter(f"--false-alarm-rate is between 0 and 1, not {rate:g}.")
    rule = Rule.MANUAL if value is not None else Rule.GAMMA if gamma else Rule.CONFORMAL
    settings = ThresholdSettings(rule=rule, false_alarm_rate=rate, decision_threshold=value)
    with Client(url) as client:
        if default or settings != ThresholdSettings():
            client.put_threshold(machine, settings)
        found = client.threshold(machine)
    typer.echo(f"{machine}: {found.decision_threshold:.2f} ({found.rule}, calibration {found.calibration_version}).")
    for line in promise(found):
        typer.echo(line)
