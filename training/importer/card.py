"""Writes the card of an imported bundle, as Markdown."""

from service.encoder.bundle import Manifest
from training.importer.checks import QUIETER_DB, Findings


def card(manifest: Manifest, findings: Findings, *, remove_level: bool, licensed: bool) -> str:
    """Format `CARD.md`; `licensed` is true if the bundle has the text of the license."""
    made, spec, rate = manifest.provenance, manifest.window, manifest.input.sample_rate
    text = " (its text is in this folder)" if licensed else ""
    figures = "\n".join(f"| {figure.name} | {figure.value:.4g} |" for figure in manifest.measured)
    return f"""\
# {manifest.name} {manifest.version}

An encoder imported from `{made.encoder}`: from a waveform at {rate} Hz to an embedding of {manifest.dim} numbers.

| | |
|---|---|
| embedding | output of the imported graph, scaled to unit norm |
| window, hop, shortest clip | {spec.seconds:g} s, {spec.hop_seconds:g} s, {spec.min_seconds:g} s |
| embedding space | `{manifest.embedding_space_id}` |
| ONNX opset | {manifest.opset} |
| localization | by a log-mel spectrogram that the import added; the encoder does not use it |
| a student can start from it | no, it has only the weights in the graph |

## Provenance

Encoder: {made.encoder_attribution}, {made.encoder_license} license{text}.
The import records no training data.

## Level

{_level(findings, remove_level=remove_level)}

## Measured

On synthetic sounds, by the import:

```sh
{manifest.measured[0].command}
```

| what | value |
|---|---:|
{figures}

Nothing was measured on machines. Run `offkey evaluate` for that.

## Limits

- Nothing above {rate / 2:g} Hz reaches the encoder. Clips shorter than {spec.min_seconds:g} s are refused.
- The golden vectors were made by this graph. They show that another computer gets the same results, not that its
  front end is the one that the weights were trained with.
"""


def _level(findings: Findings, *, remove_level: bool) -> str:
    if remove_level:
        return (
            "Each window is scaled to the same level before the encoder. The gain of the microphone does not matter, "
            "and a fault that\nchanges only the loudness is not found."
        )
    measured = (
        f"A clip that is {QUIETER_DB:g} dB quieter is at a cosine distance of up to {findings.gain:.2g} from itself "
        f"(two synthetic sounds: at least {findings.sounds:.2g})"
    )
    if findings.level_leaks:
        return (
            f"{measured}.\n**The level leaks into the embedding**: another gain or distance of the microphone looks "
            "like a fault.\n`--remove-level` prevents that."
        )
    return f"{measured}, so the gain of\na microphone hardly matters."
