"""Compares a training step with its networks alone: the cost of loading, mixing and optimizer, the gain of the cache.

    python benchmarks/training_step.py CONFIG [KEY=VALUE ...]

For the same batches, in alternating blocks: whole steps with an empty teacher cache; the same steps with a filled
cache; the student's forward and backward pass alone, and the teacher's forward pass alone. A step is measured from one
batch to the next, including the wait for the loader. Results are medians and their ratios.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from machine import write
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from training.config import Config, load_config
from training.data.batches import Batch
from training.data.shard import Shard
from training.factory import build_student
from training.learner import Learner
from training.mixing import mix
from training.processes import Processes
from training.sounds import Sounds
from training.teacher import FrozenStudent, Teacher
from training.trainer import Trainer

BLOCK = 6  # steps; the first of each block starts the loader and is not counted


def main() -> None:
    """Measure and write results/training_step.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--blocks", type=int, default=4)
    given = parser.parse_args()
    config = load_config(given.config, given.overrides)
    torch.set_num_threads(config.threads)
    with tempfile.TemporaryDirectory() as folder, Progress() as progress:
        bench = Bench(config, Path(folder))
        times: dict[str, list[float]] = {"wait": [], "first": [], "cached": [], "student": [], "teacher": []}
        for block in progress.track(range(given.blocks), description="measuring"):
            start = block * BLOCK
            for name in ("first", "cached"):
                waits, steps = bench.steps(start)
                times[name] += steps
                times["wait"] += waits
            for batch in (bench.batches[number] for number in range(start + 1, start + BLOCK)):
                times["student"].append(seconds(partial(bench.student_alone, batch)))
                times["teacher"].append(seconds(partial(bench.teacher_alone, batch)))
    medians = {name: statistics.median(found) for name, found in times.items()}
    alone = medians["student"] + medians["teacher"]
    result = {
        "batch": config.optim.batch,
        "window_seconds": config.data.window_seconds,
        "workers": config.loop.workers,
        "milliseconds": {name: round(1e3 * value, 1) for name, value in medians.items()},
        "step_over_networks_alone": round(medians["first"] / alone, 3),
        "cached_step_over_first": round(medians["cached"] / medians["first"], 3),
        "wait_share_of_cached_step": round(medians["wait"] / medians["cached"], 3),
    }
    table = Table("what", "value")
    for name, value in result.items():
        table.add_row(name, str(value))
    Console().print(table)
    named = [word for word in given.overrides if word.startswith(("loop.", "optim."))]
    print(
        write(
            "training_step", " ".join(["python benchmarks/training_step.py", given.config.as_posix(), *named]), result
        )
    )


class Bench:
    """A trainer on the config's data, and its networks by themselves."""

    def __init__(self, config: Config, cache: Path) -> None:
        self.config = config
        student = build_student(config)
        self.batches = Sounds.load(config, student.sample_rate).batches(config, Shard())
        level = config.objective.level
        self.teacher = Teacher(FrozenStudent(student, level, half=False), cache, level)
        self.learner = Learner(student, len(self.batches.vocabulary), None, config)
        self.trainer = Trainer(config, self.learner, self.teacher, Processes(Shard(), torch.device("cpu")))

    def steps(self, start: int) -> tuple[list[float], list[float]]:
        """Seconds of waiting and of whole steps, for the steps of a block but its first."""
        waits, steps = [], []
        loader = iter(self.batches.loader(start, start + BLOCK, workers=self.config.loop.workers))
        self.trainer.step(next(loader))
        for _ in range(BLOCK - 1):
            before = time.perf_counter()
            batch = next(loader)
            waits.append(time.perf_counter() - before)
            self.trainer.step(batch)
            steps.append(time.perf_counter() - before)
        return waits, steps

    def student_alone(self, batch: Batch) -> None:
        """Forward and backward on a mixture."""
        vectors, logits, _ = self.learner(
            mix(batch.sources, batch.noises, 0.0), batch.sources[:0], lambda logmel: logmel
        )
        torch.autograd.backward(sum(each.square().mean() for each in vectors) + logits.square().mean())

    def teacher_alone(self, batch: Batch) -> None:
        """Forward on the sources and on the noises."""
        self.teacher.network.vectors(batch.sources)
        self.teacher.network.vectors(batch.noises)


def seconds(call: partial[None]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
