"""Writes the card of a bundle: provenance, figures and limits, as Markdown."""

from collections.abc import Sequence

from service.encoder.bundle import WEIGHTS_FILE, Manifest, Measurement

_LIMITS = """\
- Each window is scaled to the same level before it is embedded. A fault that changes only the loudness is not
  found, and the gain of the microphone does not matter.
- Sound above {highest:g} Hz is not used.
- The figures above come from few machines and few noises. They compare this bundle with its baselines
  on these machines, and do not predict its result on another machine.
- Clips shorter than {shortest:g} s are refused; the figures were measured on clips of 10 s, and scores of shorter clips
  are less reliable.
"""


# Names of the figures of the retain target, as `training.export` writes them.
HELD_OUT = "held-out mixtures"
DISTANCE = "squared distance to the target"
FROZEN_DISTANCE = "the frozen encoder's"

_PRECISION = {
    "float32": "float32",
    "int8": "int8 in the encoder's linear layers, by ONNX Runtime's dynamic quantization; spectrum, attention and "
    "projection in float32. It has its own golden vectors. Run one window at a time, because a batch is "
    "quantized as a whole",
}


def card(manifest: Manifest, *, licensed: bool) -> str:
    """Format `CARD.md`; `licensed` is true if the bundle has the text of the encoder's license."""
    made, readout = manifest.provenance, manifest.readout
    trained = (
        f"by {made.steps} steps of the objective `{made.objective}` (arXiv 2510.25182)"
        if made.steps
        else "without any training step: this is the frozen encoder, a baseline"
    )
    kept = (
        f"\nIts weights are those of `{made.weights_from}`. Only the projection was fitted for this bundle."
        if made.weights_from
        else ""
    )
    data = "\n".join(f"| {part.name} | {part.clips} | {part.license} | {part.attribution} |" for part in made.data)
    text = " (its text is in this folder)" if licensed else ""
    rate = manifest.input.sample_rate
    limits = _LIMITS.format(highest=manifest.input.highest_hz, shortest=manifest.window.min_seconds)
    return f"""\
# {manifest.name} {manifest.version}

An encoder for anomalous sound detection: from a waveform at {rate} Hz to an embedding of {manifest.dim} numbers.
It was made from {made.encoder} {trained}.{kept}

| | |
|---|---|
| layers read | {", ".join(readout.layers)} |
| pooling over time | {readout.pooling} |
| projection | {readout.projection} |
| window, hop | {manifest.window.seconds:g} s, {manifest.window.hop_seconds:g} s |
| embedding space | `{manifest.embedding_space_id}` |
| ONNX opset | {manifest.opset} |
| precision | {_PRECISION[manifest.precision]} |
| a student can start from it | {_start(manifest)} |

## Provenance

Encoder: {made.encoder_attribution}, {made.encoder_license} license{text}.

Clips used in training and for the mean and covariance of the projection:

| set | clips | license | attribution |
|---|---|---|---|
{data}

## Does it retain?

{_retention(manifest)}

## Measured

{_figures(manifest.measured)}
{_measured_on(manifest)}
## Limits

{limits}"""


def _measured_on(manifest: Manifest) -> str:
    space = manifest.embedding_space_id
    if space.startswith(f"{manifest.name}/{manifest.version}-") or not manifest.measured:
        return ""
    return (
        f"\nMeasured on the bundle that the embedding space is named after, `{space}`: this bundle is the same student "
        "in another graph,\nand its embeddings are equal to 1e-5.\n"
    )


def _retention(manifest: Manifest) -> str:
    """State whether the student is nearer to its target than the encoder that it started from."""
    found = {figure.name: figure.value for figure in manifest.measured if figure.name.startswith(HELD_OUT)}
    own = next((value for name, value in found.items() if f"{HELD_OUT}, 0 dB: {DISTANCE}" in name), None)
    frozen = next((value for name, value in found.items() if f"{HELD_OUT}, 0 dB: {FROZEN_DISTANCE} (" in name), None)
    if own is None or frozen is None:
        trained = manifest.provenance.weights_from is None
        reason = "the run measured no held-out mixtures" if trained else "the weights were not trained for this bundle"
        return f"Not recorded: {reason}."
    nearer = 1 - own / frozen
    where, so = ("nearer to", "it retains") if nearer > 0 else ("farther from", "it does not retain")
    return (
        f"On held-out mixtures at 0 dB, without masks, it lies {abs(nearer):.0%} {where} the target than the encoder "
        f"it started\nfrom: {so}."
    )


def _start(manifest: Manifest) -> str:
    return f"yes, from `{WEIGHTS_FILE}`" if manifest.weights_sha256 else "no, it has only the weights in the graph"


def _figures(measured: Sequence[Measurement]) -> str:
    """Format a table for each command, in the order of their first figures."""
    tables = []
    for command in dict.fromkeys(figure.command for figure in measured):
        rows = [f"| {figure.name} | {figure.value:.4g} |" for figure in measured if figure.command == command]
        tables.append("\n".join(["```sh", command, "```", "", "| what | value |", "|---|---:|", *rows]))
    return "\n\n".join(tables) or "No figures."
