"""The losses of arXiv 2510.25182."""

import pytest
import torch

from training.config import ObjectiveConfig
from training.objective import Objective, multi_hot


def unit(rows: int, dim: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_the_target_is_the_convex_combination(share: float) -> None:
    clean, noise = unit(4, 8, 0), unit(4, 8, 1)
    target = Objective(ObjectiveConfig(clean_share=share)).target(clean, noise)
    assert torch.allclose(target, share * clean + (1 - share) * noise)


def test_denoising_forgets_the_noise() -> None:
    clean, noise = unit(4, 8, 0), unit(4, 8, 1)
    assert torch.equal(Objective(ObjectiveConfig(kind="denoise")).target(clean, noise), clean)


def test_the_parts_are_weighted_and_each_kind_uses_its_own() -> None:
    clean, noise, embedding = unit(4, 8, 0), unit(4, 8, 1), unit(4, 8, 2)
    logits, tags = torch.randn(4, 5), multi_hot(torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 1, 0]), 3, 2)
    aligned = float((embedding - 0.5 * (clean + noise)).square().sum(dim=1).mean())
    probability = torch.sigmoid(logits)
    tagged = float(-(tags * probability.log() + (1 - tags) * (1 - probability).log()).mean())
    expected = {"retain": 2 * aligned + 3 * tagged, "tagging": 3 * tagged, "alignment": 2 * aligned}
    for kind, total in expected.items():
        objective = Objective(ObjectiveConfig(kind=kind, tagging_weight=3, alignment_weight=2))  # type: ignore[arg-type]
        losses = objective(embedding, logits, clean, noise, tags)
        assert float(losses.total) == pytest.approx(total, rel=1e-5)
        assert float(losses.alignment) == pytest.approx(aligned, rel=1e-5)
        assert float(losses.tagging) == pytest.approx(tagged, rel=1e-5)


def test_an_embedding_on_the_target_costs_nothing() -> None:
    clean, noise = unit(2, 8, 0), unit(2, 8, 1)
    losses = Objective(ObjectiveConfig(kind="alignment"))(
        0.5 * (clean + noise),
        torch.zeros(2, 2),
        clean,
        noise,
        multi_hot(torch.zeros(2).long(), torch.ones(2).long(), 1, 2)[:, :2],
    )
    assert float(losses.total) == pytest.approx(0, abs=1e-12)


def test_tags_name_one_source_and_one_noise() -> None:
    tags = multi_hot(torch.tensor([2, 0]), torch.tensor([1, 0]), 3, 2)
    assert tags.tolist() == [[0, 0, 1, 0, 1], [1, 0, 0, 1, 0]]
