"""Draw docs/scoring.png: the two views of one machine, and distance by length.

    python benchmarks/scoring_figure.py

All sounds are synthetic: the fan of `offkey synthesize`.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from offkey.vocabulary import Domain
from service.audio.decode import Samples
from service.domain.detector import EVENT_WEIGHT, Detector
from service.domain.distance import Near
from service.domain.enrolled import Details
from service.domain.threshold import conformal_threshold
from service.encoder.encoder import Embedding, Encoder
from service.encoder.pieces import embed_pieces
from service.settings import Device, shipped_bundle
from service.synthetic import MACHINES

RATE = 16_000  # Hz
CLIPS, TESTS = 20, 12
FALSE_ALARM_RATE = 0.05
LENGTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
SOURCE = Domain.SOURCE
NEAR = {SOURCE: Near(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.int64))}  # not used by the default backend


def main() -> None:
    """Fit a detector, measure clips and write the figure."""
    encoder, fan = Encoder(shipped_bundle(), Device.CPU), MACHINES["fan-synthetic"]
    train = [fan.clip(split="train", domain="source", number=number) for number in range(CLIPS)]
    detector = fit(encoder, train)
    healthy = [fan.clip(split="test", domain="source", number=number) for number in range(TESTS)]
    worn = [fan.clip(split="test", domain="source", number=number, severity=0.3) for number in range(TESTS)]
    rng = np.random.default_rng(0)
    squealing = [with_squeal(clip, rng) for clip in healthy]
    groups = {"healthy": healthy, "worn part": worn, "squeal of 0.2 s": squealing}
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    draw_views(left, encoder, detector, groups)
    draw_lengths(right, encoder, detector, healthy)
    path = Path(__file__).parent.parent / "docs" / "scoring.png"
    figure.savefig(path, dpi=110, metadata={"Software": None})
    print(path)


def fit(encoder: Encoder, clips: list[Samples]) -> Detector:
    """Enroll clips as the service does."""
    embedded = [encoder.embed(clip) for clip in clips]
    pieces = [
        (number, piece)
        for number, (clip, own) in enumerate(zip(clips, embedded, strict=True))
        for piece in embed_pieces(encoder, clip, own.starts, number)
    ]
    numbers = np.arange(len(clips))
    details = Details.of(
        np.array([len(clip) / RATE for clip in clips]),
        [own.slices[0] for own in embedded],
        pieces,
        {number: number for number in numbers.tolist()},
    )
    vectors = np.concatenate([own.vectors for own in embedded])
    return Detector.fit({SOURCE: vectors}, {SOURCE: numbers}, details={SOURCE: details})


def with_squeal(clip: Samples, rng: np.random.Generator) -> Samples:
    """Add a squeal of 0.2 s, 10 dB above the level of the clip."""
    length = round(0.2 * RATE)
    squeal = np.sin(2 * np.pi * rng.uniform(1_500, 5_000) * np.arange(length) / RATE) * np.hanning(length)
    found, at = clip.copy(), int(rng.integers(len(clip) - length))
    gain = 10**0.5 * np.std(clip) / np.sqrt(np.mean(np.square(squeal)))
    found[at : at + length] += (gain * squeal).astype(np.float32)
    return found


def views(detector: Detector, embedded: Embedding, seconds: float) -> NDArray[np.float64]:
    """Return the standardized steady and event measures of a clip of one window, the event weighted."""
    measured = detector._measure(embedded.vectors, NEAR, embedded.slices, detector.reference(seconds))[SOURCE]
    return np.array([measured.steady[0], measured.event[0]])


def draw_views(axes: plt.Axes, encoder: Encoder, detector: Detector, groups: dict[str, list[Samples]]) -> None:
    """Draw clips by both views, and the area without an alarm."""
    threshold = conformal_threshold(detector.self_scores, FALSE_ALARM_RATE).value
    for (name, clips), marker in zip(groups.items(), "o^s", strict=True):
        found = np.array([views(detector, encoder.embed(clip), len(clip) / RATE) for clip in clips])
        axes.scatter(found[:, 0], found[:, 1], label=name, marker=marker, s=28)
    axes.set(xscale="symlog", yscale="symlog", xlabel="steady view", ylabel=f"event view, weighted {EVENT_WEIGHT}")
    low_x, low_y = axes.get_xlim()[0], axes.get_ylim()[0]
    axes.fill_between([low_x, threshold], low_y, threshold, color="0.9", zorder=0)
    axes.set(xlim=(low_x, None), ylim=(low_y, None), title="Two views of a clip")
    axes.legend(loc="best")


def draw_lengths(axes: plt.Axes, encoder: Encoder, detector: Detector, healthy: list[Samples]) -> None:
    """Draw the distance of healthy clips by length, and their scores."""
    distances, scores = [], []
    for seconds in LENGTHS:
        cut = [encoder.embed(clip[: round(seconds * RATE)]) for clip in healthy]
        reference = detector.reference(seconds)
        measured = [detector._measure(own.vectors, NEAR, own.slices, reference)[SOURCE] for own in cut]
        scale = reference.scales[SOURCE][0]
        scores.append([float(own.both[0]) for own in measured])
        distances.append([scale.mu + scale.sigma * float(own.steady[0]) for own in measured])
    axes.plot(LENGTHS, np.array(distances), "C0.", alpha=0.5)
    axes.plot(LENGTHS, np.median(distances, axis=1), "C0-", label="distance from the bank (left scale)")
    axes.set(
        xscale="log", xlabel="length of a healthy clip, seconds", ylabel="distance", title="Clips of other lengths"
    )
    axes.set_xticks(LENGTHS, [f"{seconds:g}" for seconds in LENGTHS])
    axes.minorticks_off()
    other = axes.twinx()
    other.plot(LENGTHS, np.array(scores), "C1.", alpha=0.5)
    other.plot(LENGTHS, np.median(scores, axis=1), "C1-", label="score (right scale)")
    other.set(ylabel="anomaly score", ylim=(-4, 12))
    axes.legend(loc="upper right", framealpha=1)
    other.legend(loc="lower left")


if __name__ == "__main__":
    main()
