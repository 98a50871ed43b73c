"""Pooling keeps the frequency axis; whitening whitens."""

import pytest
import torch

from training.readout import POOLINGS, Readout, Whitening


def test_poolings_on_a_grid_that_is_easy_to_read() -> None:
    grid = torch.zeros(1, 2, 2, 3)  # (batch, time, freq, dim)
    grid[0, 0] = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    grid[0, 1] = torch.tensor([[3.0, 2, 1], [4, 5, 8]])
    assert POOLINGS["mean"]()(grid).tolist() == [[2, 2, 2, 4, 5, 7]]
    both = POOLINGS["mean-deviation"]()(grid)
    assert torch.allclose(both, torch.tensor([[2.0, 2, 2, 4, 5, 7, 1, 0, 1, 0, 0, 1]]), atol=2e-4)


@pytest.mark.parametrize("name", POOLINGS)
def test_every_pooling_ignores_the_order_of_time_and_has_a_finite_gradient(name: str) -> None:
    grid = torch.randn(2, 5, 3, 4)
    grid[1, :, 0] = 1.0  # a constant channel has no deviation; its gradient must not be NaN
    grid.requires_grad_()
    pooling = POOLINGS[name]()
    pooled = pooling(grid)
    assert pooled.shape == (2, pooling.statistics * 12)
    assert torch.allclose(pooled, pooling(grid.flip(1)), atol=1e-6)
    pooled.sum().backward()
    assert grid.grad is not None
    assert bool(torch.isfinite(grid.grad).all())


def test_whitening_gives_unit_covariance() -> None:
    x = torch.randn(5_000, 6, dtype=torch.double) @ torch.randn(6, 6, dtype=torch.double) + 3
    whitening = Whitening(6)
    centered = x - x.mean(dim=0)
    whitening.fit(x.mean(dim=0), centered.T @ centered / len(x), epsilon=1e-9)
    z = whitening(x.float())
    assert torch.allclose(z.T @ z / len(z), torch.eye(6), atol=0.02)
    assert torch.allclose(z.mean(dim=0), torch.zeros(6), atol=0.01)


def test_a_direction_without_variance_stays_finite() -> None:
    whitening = Whitening(3)
    whitening.fit(torch.zeros(3), torch.diag(torch.tensor([1.0, 1.0, 0.0])), epsilon=0.01)
    assert float(whitening.matrix.max()) == pytest.approx((0.01 * 2 / 3) ** -0.5, rel=1e-4)
    with pytest.raises(ValueError, match="cannot whiten"):
        whitening.fit(torch.zeros(3), torch.zeros(3, 3), epsilon=0.01)


def test_layers_stand_side_by_side_and_the_embedding_has_unit_norm() -> None:
    readout = Readout({"a": (2, 3), "b": (1, 4)}, "mean")
    grids = {"a": torch.randn(5, 7, 2, 3), "b": torch.randn(5, 3, 1, 4)}
    reading = readout(grids)
    assert readout.dim == 10
    assert torch.allclose(reading.pooled[:, :6], grids["a"].mean(dim=1).flatten(1))
    assert torch.allclose(reading.pooled[:, 6:], grids["b"].mean(dim=1).flatten(1))
    assert torch.allclose(reading.embedding.norm(dim=1), torch.ones(5))
