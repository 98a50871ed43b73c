"""The losses of arXiv 2510.25182."""

from typing import Literal

import pytest
import torch

from training.config import ObjectiveConfig
from training.objective import ANCHOR_PERIOD, Objective, Predictions, anchored, target


def unit(*shape: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("shape", [(4, 8), (4, 5, 8), (4, 5, 2, 8)])
def test_the_target_is_the_convex_combination_of_each_mixture(shape: tuple[int, ...]) -> None:
    clean, noise = unit(*shape, seed=0), unit(*shape, seed=1)
    shares = torch.tensor([0.0, 0.3, 0.5, 1.0])
    found = target(clean, noise, shares)
    for row, share in enumerate(shares):
        assert torch.allclose(found[row], share * clean[row] + (1 - share) * noise[row])


def test_lambda_is_fixed_or_follows_the_energy_or_forgets_the_noise() -> None:
    snr = torch.tensor([-10.0, 0.0, 10.0])
    assert Objective(ObjectiveConfig(clean_share=0.3)).clean_share(snr).tolist() == pytest.approx([0.3] * 3)
    energy = Objective(ObjectiveConfig(share="energy")).clean_share(snr)
    assert energy.tolist() == pytest.approx([1 / 11, 1 / 2, 10 / 11])
    assert Objective(ObjectiveConfig(kind="denoise", share="energy")).clean_share(snr).tolist() == [1, 1, 1]


def test_the_parts_are_weighted_and_each_kind_uses_its_own() -> None:
    clean, noise, embedding = unit(4, 8, seed=0), unit(4, 8, seed=1), unit(4, 8, seed=2)
    logits, tags = torch.randn(4, 5), torch.tensor([[1, 0, 0, 1, 0]] * 4).float()
    aligned = float((embedding - 0.5 * (clean + noise)).square().sum(dim=1).mean())
    probability = torch.sigmoid(logits)
    tagged = float(-(tags * probability.log() + (1 - tags) * (1 - probability).log()).mean())
    expected = {"retain": 2 * aligned + 3 * tagged, "tagging": 3 * tagged, "alignment": 2 * aligned}
    for kind, total in expected.items():
        objective = Objective(ObjectiveConfig(kind=kind, tagging_weight=3, alignment_weight=2))
        losses = objective(Predictions((embedding,), logits), (clean,), (noise,), tags, torch.full((4,), 0.5))
        assert float(losses.total) == pytest.approx(total, rel=1e-5)
        assert float(losses.alignment) == pytest.approx(aligned, rel=1e-5)
        assert float(losses.tagging) == pytest.approx(tagged, rel=1e-5)


def test_vectors_on_the_target_cost_nothing_and_layers_count_alike() -> None:
    clean, noise = (
        (unit(2, 5, 8, seed=seed), unit(2, 3, 4, 6, seed=seed)) for seed in (0, 1)
    )  # two layers of unlike grids
    half = torch.full((2,), 0.5)
    reached = tuple(target(a, b, half) for a, b in zip(clean, noise, strict=True))
    objective = Objective(ObjectiveConfig(kind="alignment"))
    nothing = torch.zeros(2, 2)
    assert float(objective(Predictions(reached, nothing), clean, noise, nothing, half).total) == pytest.approx(
        0, abs=1e-12
    )
    for layer in range(2):
        shifted = tuple(each + (place == layer) * 0.1 for place, each in enumerate(reached))
        width = clean[layer].shape[-1]
        loss = float(objective(Predictions(shifted, nothing), clean, noise, nothing, half).total)
        assert loss == pytest.approx(0.01 * width / 2, rel=1e-4)


def test_the_anchor_compares_unmixed_sounds_with_the_teachers_embeddings_of_them() -> None:
    rows = 2 * ANCHOR_PERIOD
    clean, noise, mixtures = (unit(rows, 8, seed=seed) for seed in (0, 1, 2))
    nothing, half = torch.zeros(rows, 2), torch.full((rows,), 0.5)
    objective = Objective(ObjectiveConfig(kind="alignment", anchor_weight=0.5))
    kept = objective(Predictions((mixtures,), nothing, (anchored(clean, noise),)), (clean,), (noise,), nothing, half)
    assert float(kept.anchor) == pytest.approx(0, abs=1e-12)
    assert float(kept.total) == pytest.approx(float(kept.alignment))
    moved = anchored(clean, noise) + 0.1
    lost = objective(Predictions((mixtures,), nothing, (moved,)), (clean,), (noise,), nothing, half)
    assert float(lost.anchor) == pytest.approx(0.01 * 8, rel=1e-4)
    assert float(lost.total) == pytest.approx(float(lost.alignment) + 0.5 * 0.01 * 8, rel=1e-4)


@pytest.mark.parametrize("space", ["whitened", "pooled"])
def test_raw_vectors_are_compared_by_the_mean_square_of_the_paper(space: Literal["whitened", "pooled"]) -> None:
    clean, noise = 3 * torch.ones(2, 8), torch.zeros(2, 8)
    objective = Objective(ObjectiveConfig(kind="alignment", space=space))
    found = objective(
        Predictions((torch.zeros(2, 8),), torch.zeros(2, 1)), (clean,), (noise,), torch.zeros(2, 1), torch.ones(2)
    )
    assert float(found.alignment) == pytest.approx(9.0)
