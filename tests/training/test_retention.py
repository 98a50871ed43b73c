"""The distance to the retain target on held-out mixtures, and the weights that are selected by it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.progress import Progress

from training.config import Config, ConfigError, ObjectiveConfig
from training.factory import build_student
from training.loop import resume, train
from training.mixing import mix
from training.objective import Objective
from training.retention import SNRS_DB, HeldOut, Retention, from_rows
from training.run import Run
from training.selection import Selection
from training.sounds import Sounds
from training.student import Vectors

HELD_OUT = {"held_out_share": 0.4}


def trained(config: Config, folder: Path) -> Run:
    with Progress(disable=True) as progress:
        return train(config, "tiny", folder, progress)


def measured(run: Run) -> list[tuple[int, Retention]]:
    return from_rows(run.retention.rows())


def steps_at_0_db(run: Run) -> dict[int, Retention]:
    return {step: one for step, one in measured(run) if one.snr_db == 0}


def test_held_out_clips_are_never_drawn(tiny_config: Callable[..., Config]) -> None:
    sounds = Sounds.load(tiny_config(data=HELD_OUT), 16_000)
    held = {clip.name for clip in sounds.held_out_clips}
    assert len(held) == 3, "of 5 sources 2, of 5 noises 2; one of them sounds like a clip that is trained on"
    assert held.isdisjoint(clip.name for clip in sounds.clips)
    assert held | {clip.name for clip in sounds.clips} == {f"{number}.wav" for number in range(10)}
    assert not Sounds.load(tiny_config(data={"held_out_share": 0.1}), 16_000).held_out_clips, "a tenth of 5 is none"


def test_a_recording_that_is_trained_on_under_another_name_is_not_held_out(
    tiny_config: Callable[..., Config], clips: Path, tmp_path: Path
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    for number in range(10):
        (copies / f"{number}.wav").write_bytes((clips.parent / f"{number}.wav").read_bytes())
    twice = {"layout": "folder", "path": str(copies), "permissive": True}
    config = tiny_config(data={**HELD_OUT, "collections": [twice]})
    sounds = Sounds.load(config, 16_000)
    trained_on = {window.content for window in (*sounds.sources, *sounds.noises)}
    assert trained_on.isdisjoint(window.content for window in sounds.held_out_sources)


def test_the_distance_is_that_of_unmasked_mixtures_to_the_mean_of_the_teachers_embeddings() -> None:
    """Against the plain formula, written out for single mixtures."""
    generator = torch.Generator().manual_seed(3)
    waveforms = {number: torch.randn(400, generator=generator) for number in range(4)}
    weights = torch.randn(400, 6, generator=generator)
    other = torch.randn(400, 6, generator=generator)

    def network(matrix: torch.Tensor) -> Callable[[torch.Tensor], Vectors]:
        return lambda waveform: (torch.nn.functional.normalize(waveform @ matrix, dim=1),)

    held_out = HeldOut(
        Objective(ObjectiveConfig()),
        network(weights),
        lambda windows: torch.stack([waveforms[window] for window in windows]),
        [0, 1],
        [2, 3],
        count=2,
    )
    found = {one.snr_db: one for one in held_out.measure(network(other))}
    assert set(found) == set(SNRS_DB)
    pairs = [(a, b) for a in (0, 1) for b in (2, 3)]
    for snr, one in found.items():
        options = set()
        for chosen in (pairs[0], pairs[1]), (pairs[0], pairs[3]), (pairs[1], pairs[2]), (pairs[2], pairs[3]):
            total = {"own": 0.0, "frozen": 0.0, "cosine": 0.0}
            for a, b in chosen:
                clean, noise = (network(weights)(waveforms[number][None])[0][0] for number in (a, b))
                target = 0.5 * clean + 0.5 * noise
                mixture = mix(waveforms[a][None], waveforms[b][None], snr)
                own, frozen = (network(matrix)(mixture)[0][0] for matrix in (other, weights))
                total["own"] += float((own - target).square().sum()) / 2
                total["frozen"] += float((frozen - target).square().sum()) / 2
                total["cosine"] += float(own @ target / target.norm()) / 2
            options.add(tuple(round(value, 4) for value in total.values()))
        assert tuple(round(value, 4) for value in (one.distance, one.frozen_distance, one.cosine)) in options


def test_training_logs_the_held_out_distance_and_takes_the_weights_with_the_least(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    optim = {"steps": 12, "batch": 4, "learning_rate": 0.02, "warmup_steps": 1}
    loop = {"evaluate_steps": 2, "held_out_mixtures": 8, "checkpoint_steps": 4}
    run = trained(tiny_config(data=HELD_OUT, optim=optim, loop=loop), tmp_path)
    found = steps_at_0_db(run)
    assert list(found) == [2, 4, 6, 8, 10, 12]
    assert len(measured(run)) == len(found) * len(SNRS_DB)
    frozen = {one.frozen_distance for one in found.values()}
    assert len(frozen) == 1, "the frozen encoder does not change"
    best = min(found, key=lambda step: found[step].distance)
    assert run.latest()[1]["selected_step"] == best
    assert best < 12, "with this learning rate the last weights are not the best, so taking the last would show"
    assert run.about["held_out_clips"]

    student = build_student(run.config)
    state = run.latest()[0]
    student.load_state_dict({name[8:]: value for name, value in state.items() if name.startswith("student.")})
    sounds = Sounds.load(run.config, 16_000)
    frozen_student = build_student(run.config)
    frozen_student.readout.whitening.load_state_dict(student.readout.whitening.state_dict())
    held_out = HeldOut(
        Objective(run.config.objective),
        lambda waveform: frozen_student.embed(waveform, "clip").vectors,
        sounds.audio.batch,
        sounds.held_out_sources,
        sounds.held_out_noises,
        8,
    )
    (again, *_) = held_out.measure(lambda waveform: student.embed(waveform, "clip").vectors)
    assert again.distance == pytest.approx(found[best].distance, abs=1e-6), "the saved weights are those measured"
    assert again.frozen_distance == pytest.approx(found[best].frozen_distance, abs=1e-6)


def test_a_run_without_progress_ends_early_and_resumes_to_the_same_choice(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    optim = {"steps": 400, "batch": 4, "learning_rate": 0.05, "warmup_steps": 1}
    loop = {"evaluate_steps": 1, "held_out_mixtures": 8, "checkpoint_steps": 1, "patience": 3, "keep_checkpoints": 9}
    config = tiny_config(data=HELD_OUT, optim=optim, loop=loop)
    run = trained(config, tmp_path)
    last, state = max(steps_at_0_db(run)), run.latest()[1]
    assert last < 100
    assert state["step"] == last == state["selected_step"] + 3
    before = measured(run)
    weights = run.latest()[0]
    for folder in run.checkpoints[-2:]:  # as if it had been killed two steps before its end
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    with Progress(disable=True) as progress:
        resume(run, config, progress)
    assert measured(run) == before
    assert all(value.equal(weights[name]) for name, value in run.latest()[0].items())


def test_tagging_has_no_target_so_its_last_weights_are_taken(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    optim = {"steps": 6, "batch": 4, "learning_rate": 0.02, "warmup_steps": 1}
    loop = {"evaluate_steps": 2, "held_out_mixtures": 8}
    run = trained(tiny_config(data=HELD_OUT, optim=optim, loop=loop, objective={"kind": "tagging"}), tmp_path)
    assert run.latest()[1]["selected_step"] == 6
    assert list(steps_at_0_db(run)) == [2, 4, 6]


def test_without_held_out_clips_nothing_is_measured(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    run = trained(tiny_config(data={"held_out_share": 0.0}), tmp_path)
    assert not measured(run)
    assert run.latest()[1]["selected_step"] == 3


def test_an_anchor_needs_parts_of_whole_periods(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny_config(objective={"anchor_weight": 0.5}, optim={"batch": 6, "steps": 1})
    with pytest.raises(ConfigError, match="must be a multiple of 4 mixtures, not 6"):
        trained(config, tmp_path)


@pytest.mark.parametrize("space", ["whitened", "pooled"])
def test_a_run_can_align_raw_vectors(tiny_config: Callable[..., Config], tmp_path: Path, space: str) -> None:
    optim = {"steps": 20, "batch": 4, "learning_rate": 0.003, "warmup_steps": 1}
    rows = trained(tiny_config(objective={"space": space}, optim=optim), tmp_path).losses.rows()
    assert sum(row["alignment"] for row in rows[-4:]) < sum(row["alignment"] for row in rows[:4])


def test_the_selection_is_the_averaged_weights_where_an_average_is_kept(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    measure = Selection.measure

    def noted(self: Selection, step: int, *, last: bool) -> object:
        before = next(self._trainer.learner.student.encoder.parameters()).clone()
        found = measure(self, step, last=last)
        assert next(self._trainer.learner.student.encoder.parameters()).equal(before), "training goes on as it was"
        seen.append(self._best["student.encoder.features.0.0.weight"])
        return found

    monkeypatch.setattr(Selection, "measure", noted)
    optim = {"steps": 1, "batch": 4, "learning_rate": 0.02, "warmup_steps": 1, "ema_decay": 0.9}
    loop = {"evaluate_steps": 1, "held_out_mixtures": 4}
    run = trained(tiny_config(data=HELD_OUT, optim=optim, loop=loop), tmp_path)
    assert run.latest()[0]["student.encoder.features.0.0.weight"].equal(seen[0])
