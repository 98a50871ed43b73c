"""`offkey threshold`."""

from typing import Annotated

import typer

from offkey import Client, Rule, ThresholdSettings
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
        bool, typer.Option("--gamma", help="Use a fitted gamma distribution, as in the DCASE baselines.")
    ] = False,
    value: Annotated[float | None, typer.Option(help="Decision threshold on the scale of the scores.")] = None,
    default: Annotated[bool, typer.Option("--default", help="Return to the default of the service.")] = False,
    url: Url = URL,
) -> None:
    """Show or change a machine's decision threshold. Nothing is enrolled again."""
    if default and (gamma or rate is not None or value is not None):
        raise typer.BadParameter("--default cannot be combined with another option.")
    if value is not None and (gamma or rate is not None):
        raise typer.BadParameter("--value cannot be combined with another option.")
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
