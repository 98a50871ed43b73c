"""The teacher is frozen, and cached vectors equal computed ones."""

from collections.abc import Callable

import pytest
import torch

from training.config import Config
from training.data.shard import Shard
from training.factory import build_student
from training.learner import Learner
from training.processes import Processes
from training.sounds import Sounds
from training.student import Level, Student
from training.teacher import FrozenStudent, Teacher
from training.trainer import Trainer


class World:
    """A student, its teacher and windows."""

    def __init__(self, config: Config, student: Student | None = None) -> None:
        self.student = student or build_student(config)
        self.level: Level = config.objective.level
        self.sounds = Sounds.load(config, self.student.sample_rate)
        self.folder = self.sounds.audio.folder.parent
        self.teacher = Teacher(FrozenStudent(self.student, self.level, half=False), self.folder, self.level)
        self.batches = self.sounds.batches(config, Shard())
        torch.manual_seed(0)  # of the head
        learner = Learner(self.student, len(self.batches.vocabulary), None, config)
        self.trainer = Trainer(config, learner, self.teacher, Processes(Shard(), torch.device("cpu")))

    def ask(self, count: int) -> tuple[torch.Tensor, ...]:
        windows = self.sounds.sources[:count]
        return self.teacher.vectors(windows, self.sounds.audio.batch(windows))


def test_the_student_learns_and_the_teacher_does_not(tiny_config: Callable[..., Config]) -> None:
    world = World(tiny_config(optim={"steps": 3, "learning_rate": 0.01}))
    network = world.teacher.network
    assert isinstance(network, FrozenStudent)
    teacher = {name: value.clone() for name, value in network.student.state_dict().items()}
    student = {name: value.clone() for name, value in world.student.state_dict().items()}
    for number in range(3):
        world.trainer.step(world.batches[number])
    assert all(torch.equal(value, teacher[name]) for name, value in network.student.state_dict().items())
    changed = [name for name, value in world.student.state_dict().items() if not torch.equal(value, student[name])]
    assert any(name.startswith("encoder.features.0.") for name in changed)
    assert not any("running" in name or "whitening" in name for name in changed), "batch norm or projection moved"
    assert not any(name.startswith("encoder.features.4.") for name in changed), "a block after the read-out changed"
    assert not any(each.requires_grad for each in world.ask(3))


def test_a_batch_in_parts_has_the_gradient_of_the_whole(tiny_config: Callable[..., Config]) -> None:
    """AdamW removes the scale of a gradient, so losses alone would not show it."""
    found = []
    for parts in (1, 4):
        world = World(tiny_config(optim={"batch": 4, "accumulate": parts, "clip_norm": 1e9}))
        world.trainer.step(world.batches[0])
        gradient = next(world.student.encoder.parameters()).grad
        assert gradient is not None
        found.append(gradient)
    whole, parted = found
    assert float((parted - whole).norm() / whole.norm()) < 1e-5


@pytest.mark.parametrize("level", ["clip", "frame", "token"])
def test_a_hit_equals_a_computation_and_costs_none(tiny_config: Callable[..., Config], level: Level) -> None:
    world = World(tiny_config(objective={"level": level}, readout={"layers": ["block_01", "block_03"]}))
    first = world.ask(2)
    both = world.ask(4)
    counts = (world.teacher.hits, world.teacher.misses)
    assert counts == ((0, 6) if level == "token" else (2, 4)), "whole grids are not kept"
    with torch.no_grad():
        fresh = world.student.embed(world.sounds.audio.batch(world.sounds.sources[:4]), level).vectors
    assert len(first) == len(both) == len(fresh) == (1 if level == "clip" else 2)
    for early, late, expected in zip(first, both, fresh, strict=True):
        assert late.shape == expected.shape
        assert late.dim() == {"clip": 2, "frame": 3, "token": 4}[level]
        assert torch.allclose(late[:2], early, atol=1e-6)
        assert torch.allclose(late, expected, atol=1e-6)
        assert torch.allclose(late.norm(dim=-1), torch.ones(()), atol=1e-5)


def test_a_level_does_not_find_what_another_kept(tiny_config: Callable[..., Config]) -> None:
    clip = World(tiny_config())
    clip.ask(2)
    frame = World(tiny_config(objective={"level": "frame"}), clip.student)
    assert frame.ask(2)[0].dim() == 3
    assert (frame.teacher.hits, frame.teacher.misses) == (0, 2)


def test_the_cache_outlives_the_process_but_not_a_change_of_teacher(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config()
    world = World(config)
    (embeddings,) = world.ask(3)
    same = World(config, world.student)
    assert torch.equal(same.ask(3)[0], embeddings)
    assert same.teacher.misses == 0
    with torch.no_grad():
        next(world.student.encoder.parameters()).mul_(1.01)
    other = World(config, world.student)
    assert not torch.equal(other.ask(3)[0], embeddings)
    assert (other.teacher.hits, other.teacher.misses) == (0, 3)


def test_a_file_cut_short_is_computed_again(tiny_config: Callable[..., Config]) -> None:
    world = World(tiny_config())
    (embeddings,) = world.ask(2)
    for path in world.teacher.folder.rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:20])
    assert torch.equal(world.ask(2)[0], embeddings)
    assert (world.teacher.hits, world.teacher.misses) == (0, 4)


def test_the_read_out_is_part_of_the_teacher(tiny_config: Callable[..., Config]) -> None:
    student = build_student(tiny_config())
    before = student.fingerprint()
    student.readout.whitening.mean += 1
    assert student.fingerprint() != before


def test_gain_does_not_matter_so_one_embedding_serves_every_ratio(tiny_config: Callable[..., Config]) -> None:
    student = build_student(tiny_config())
    waveform = torch.randn(2, 8_000)
    with torch.no_grad():
        quiet, loud = (student(gain * waveform + 0.01).embedding for gain in (0.02, 5.0))
    assert torch.allclose(quiet, loud, atol=1e-4)
