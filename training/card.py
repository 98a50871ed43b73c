"""What a bundle says of itself to people."""

import csv
import io
from collections.abc import Iterable, Sequence

from service.manifest import Manifest, Measurement
from training.data.catalog import Clip

_LIMITS = """\
- Each window is brought to the same level before it is heard: a fault that changes nothing but the loudness is
  not found, and a microphone's gain does not matter.
- Nothing above {nyquist:g} Hz can be heard.
- The figures above come from few machines and few noises. They say how this bundle compares with its baselines
  there, not what it will reach on another machine.
- Clips shorter than {shortest:g} s are refused; the figures are of clips of 10 s, and so little time is less reliable.
"""


def card(manifest: Manifest) -> str:
    """The text of `CARD.md`."""
    made, readout = manifest.provenance, manifest.readout
    trained = (
        f"by {made.steps} steps of the objective `{made.objective}` (arXiv 2510.25182)"
        if made.steps
        else "without any training step: this is the frozen encoder, a baseline"
    )
    data = "\n".join(f"| {part.name} | {part.clips} | {part.license} | {part.attribution} |" for part in made.data)
    rate = manifest.input.sample_rate
    limits = _LIMITS.format(nyquist=rate / 2, shortest=manifest.window.min_seconds)
    return f"""\
# {manifest.name} {manifest.version}

An encoder for anomalous sound detection: a waveform of {rate} Hz in, an embedding of {manifest.dim} numbers out.
It was made from {made.encoder} {trained}.

| | |
|---|---|
| layers read | {", ".join(readout.layers)} |
| pooling over time | {readout.pooling} |
| projection | {readout.projection} |
| window, hop | {manifest.window.seconds:g} s, {manifest.window.hop_seconds:g} s |
| embedding space | `{manifest.embedding_space_id}` |
| ONNX opset | {manifest.opset} |

## Where it comes from

Encoder: {made.encoder_attribution}, {made.encoder_license} license (its text is in this folder).

Clips it heard, in training and for the projection's mean and covariance:

| set | clips | license | attribution |
|---|---|---|---|
{data}

## Measured

{_figures(manifest.measured)}

## Limits

{limits}"""


def _figures(measured: Sequence[Measurement]) -> str:
    """A table for each command, in the order in which the commands first come."""
    tables = []
    for command in dict.fromkeys(figure.command for figure in measured):
        rows = [f"| {figure.name} | {figure.value:.4g} |" for figure in measured if figure.command == command]
        tables.append("\n".join(["```sh", command, "```", "", "| what | value |", "|---|---:|", *rows]))
    return "\n\n".join(tables) or "Nothing yet."


def attribution_csv(clips: Iterable[Clip]) -> str:
    """One line per clip: what it is called in its set, its license, where it is from, its page if it has one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clip", "license", "source", "page"])
    for clip in sorted(clips, key=lambda clip: clip.name):
        writer.writerow([clip.path.stem, clip.license, clip.source, _page(clip)])
    return text.getvalue()


def _page(clip: Clip) -> str:
    """Where the recording was published: ESC-50 names clips `<fold>-<freesound number>-<take>-<class>`."""
    return f"https://freesound.org/s/{clip.path.stem.split('-')[1]}/" if clip.set == "esc50" else ""
