"""The teacher is frozen, and what it remembers is what it would say again."""

from collections.abc import Callable

import torch

from training.config import Config
from training.data.windows import Window
from training.loop import Sounds, Trainer, build_student
from training.teacher import Teacher


def prepared(config: Config) -> Trainer:
    student = build_student(config)
    return Trainer(config, student, Sounds.load(config, student.sample_rate))


def test_the_student_learns_and_the_teacher_does_not(tiny_config: Callable[..., Config]) -> None:
    trainer = prepared(tiny_config(optim={"steps": 3, "learning_rate": 0.01}))
    windows = list(trainer.sounds.sources[:3])
    teacher = {name: value.clone() for name, value in trainer.teacher.network.state_dict().items()}
    student = {name: value.clone() for name, value in trainer.student.state_dict().items()}
    for _ in range(3):
        trainer.step()
    assert all(torch.equal(value, teacher[name]) for name, value in trainer.teacher.network.state_dict().items())
    changed = [name for name, value in trainer.student.state_dict().items() if not torch.equal(value, student[name])]
    assert any(name.startswith("encoder.features.0.") for name in changed)
    assert not any("running" in name or "whitening" in name for name in changed), "batch norm or projection moved"
    assert not any(name.startswith("encoder.features.4.") for name in changed), "a block behind the read-out moved"
    assert trainer.teacher.embed(windows).requires_grad is False


def test_a_hit_equals_a_computation_and_costs_none(tiny_config: Callable[..., Config]) -> None:
    trainer = prepared(tiny_config())
    windows: list[Window] = list(trainer.sounds.sources[:4])
    first = trainer.teacher.embed(windows[:2])
    assert (trainer.teacher.hits, trainer.teacher.misses) == (0, 2)
    both = trainer.teacher.embed(windows)  # two known, two new
    assert (trainer.teacher.hits, trainer.teacher.misses) == (2, 4)
    assert torch.equal(both[:2], first)
    with torch.no_grad():
        fresh = trainer.student.read(trainer.sounds.audio.batch(windows)).embedding
    assert torch.allclose(both, fresh, atol=1e-6)


def test_the_cache_outlives_the_process_but_not_a_change_of_teacher(tiny_config: Callable[..., Config]) -> None:
    trainer = prepared(tiny_config())
    windows = list(trainer.sounds.noises[:3])
    embeddings = trainer.teacher.embed(windows)
    same = Teacher(trainer.student, trainer.teacher.folder.parent, trainer.sounds.audio.batch)
    assert torch.equal(same.embed(windows), embeddings)
    assert same.misses == 0
    with torch.no_grad():
        next(trainer.student.encoder.parameters()).mul_(1.01)
    other = Teacher(trainer.student, trainer.teacher.folder.parent, trainer.sounds.audio.batch)
    assert not torch.equal(other.embed(windows), embeddings)
    assert (other.hits, other.misses) == (0, 3)


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
