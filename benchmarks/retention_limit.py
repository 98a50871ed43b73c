"""Estimates the limit of retention: the target of one half of a sound, guessed from its other half.

    python benchmarks/retention_limit.py RUN --machines DIR --noise DIR

For each healthy test clip of each machine and a segment of noise of its length, the frozen encoder embeds both halves
of both sounds separately. The target is the mean of the embeddings of the first halves, the guess that of the second
halves. So the guess uses both unmixed sounds, but another moment. It is compared with the frozen encoder's embedding of
the mixture of the first halves, at 0 dB. If the guess is hardly nearer than the mixture, a student can gain little.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from machine import write
from torch.nn import functional

from training.evaluation.noise import KINDS, Noise
from training.evaluation.protocol import Sound, mix
from training.evaluation.retained import frozen_of
from training.evaluation.tree import read_tree
from training.run import Run


def main() -> None:
    """Measure and write results/retention_limit.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--machines", type=Path, required=True)
    parser.add_argument("--noise", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    frozen = frozen_of(Run(given.run))
    noise = Noise.read(given.noise, frozen.sample_rate)
    rows: dict[str, list[torch.Tensor]] = {
        "clean": [],
        "other clean": [],
        "noise": [],
        "other noise": [],
        "mixture": [],
    }
    for machine in read_tree(given.machines):
        clips = list(Sound("clean", "test").waveforms(machine, noise, frozen.sample_rate))
        for kind in KINDS:
            segments = Sound("noise", "test", kind, None, 0).waveforms(machine, noise, frozen.sample_rate)
            for clip, segment, faulty in zip(clips, segments, machine.anomalous, strict=True):
                if faulty:
                    continue
                half = len(clip) // 2
                parts = (clip[:half], clip[half : 2 * half], segment[:half], segment[half : 2 * half])
                waveforms = (*parts, mix(parts[0], parts[2], 0.0))
                with torch.inference_mode():
                    for row, samples in zip(rows.values(), waveforms, strict=True):
                        row.append(frozen.read(torch.from_numpy(samples)[None]).pooled)
    pooled = {name: torch.cat(found) for name, found in rows.items()}
    whitening = frozen.readout.whitening
    spaces = {
        "pooled, from the mean of general audio": {name: x - whitening.mean for name, x in pooled.items()},
        "whitened, unit norm": {name: functional.normalize(whitening(x), dim=1) for name, x in pooled.items()},
    }
    result: dict[str, Any] = {"clips": len(pooled["clean"])}
    for space, found in spaces.items():
        target = 0.5 * (found["clean"] + found["noise"])
        guess = 0.5 * (found["other clean"] + found["other noise"])
        result[space] = {}
        for name, each in (("guess", guess), ("mixture", found["mixture"])):
            result[space][f"cosine of the {name}"] = float(functional.cosine_similarity(each, target, dim=1).mean())
            unit = functional.normalize(each, dim=1) if "unit" in space else each
            result[space][f"squared distance of the {name}"] = float((unit - target).square().sum(dim=1).mean())
    for space, found in result.items():
        print(space, found)
    command = f"python benchmarks/retention_limit.py RUN --machines {given.machines} --noise {given.noise}"
    print(write("retention_limit", command, result))


if __name__ == "__main__":
    main()
