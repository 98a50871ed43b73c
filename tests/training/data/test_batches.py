"""The same batches for any number of workers, from any start, in any number of processes."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.data.batches import Batch, Batches, Vocabulary
from training.data.catalog import Clip, DataError
from training.data.layouts import read_collections
from training.data.layouts.collection import Collection
from training.data.shard import Shard
from training.data.windows import AudioCache, Window


@pytest.fixture
def make(tmp_path: Path, write_clips: Callable[..., Path]) -> Callable[..., Batches]:
    """`make(size=4, seed=0, shard=Shard())` over five sources of two classes and three noises."""
    root = write_clips(
        *(f"machines/{name}.wav" for name in ("fan/0", "fan/1", "fan/2", "fan/3", "pump/0")),
        *(f"noise/{name}.wav" for name in ("hiss/0", "hiss/1", "rumble/0")),
    )
    audio = AudioCache(tmp_path / "cache", 16_000)
    sources, noises = (
        audio.windows(read_collections([Collection(layout="folder", path=str(root / name))]).clips, seconds=0.1)
        for name in ("machines", "noise")
    )

    # A shard is frozen, so one can be shared by all calls.
    def build(size: int = 4, seed: int = 0, shard: Shard = Shard()) -> Batches:  # noqa: B008
        return Batches(audio, sources, noises, size=size, seed=seed, shard=shard)

    return build


def same(first: Batch, second: Batch) -> bool:
    return (
        first.number == second.number
        and torch.equal(first.sources, second.sources)
        and torch.equal(first.noises, second.noises)
        and torch.equal(first.tags, second.tags)
        and (first.source_windows, first.noise_windows) == (second.source_windows, second.noise_windows)
    )


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than a small machine has cores
def test_any_number_of_workers_gives_the_same_sequence_and_it_resumes_anywhere(make: Callable[..., Batches]) -> None:
    expected = [make()[number] for number in range(7)]
    for workers, start in ((0, 0), (1, 0), (2, 0), (3, 0), (0, 5), (2, 3)):
        found = list(make().loader(start, 7, workers=workers))
        assert len(found) == 7 - start
        assert all(map(same, found, expected[start:])), (workers, start)
    assert expected[0].sources.shape == (4, 1_600)
    assert not same(make(seed=1)[0], expected[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(world=st.integers(1, 4), each=st.integers(1, 3), number=st.integers(0, 10**6), seed=st.integers(0, 10**6))
def test_the_shards_are_together_the_whole(
    make: Callable[..., Batches], world: int, each: int, number: int, seed: int
) -> None:
    whole = make(world * each, seed)[number]
    parts = [make(world * each, seed, Shard(rank, world))[number] for rank in range(world)]
    for name in ("sources", "noises", "tags"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert sum((part.source_windows for part in parts), ()) == whole.source_windows


def test_batches_of_half_the_size_are_the_halves(make: Callable[..., Batches]) -> None:
    whole, halves = make(6)[5], [make(3)[10], make(3)[11]]
    assert torch.equal(torch.cat([half.sources for half in halves]), whole.sources)


def test_a_start_leaves_the_global_random_numbers_alone(make: Callable[..., Batches]) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert len(list(make().loader(0, 3, workers=2))) == 3
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_that_does_not_divide_is_refused(make: Callable[..., Batches]) -> None:
    with pytest.raises(ValueError, match="batch of 5 does not divide among 2"):
        make(5, shard=Shard(0, 2))
    with pytest.raises(ValueError, match="rank must be from 0 to world - 1, not 2 of 2"):
        Shard(2, 2)


def test_samples_do_not_travel_to_a_worker_with_the_cache(make: Callable[..., Batches]) -> None:
    batches = make()
    expected = batches[3]
    data = pickle.dumps(batches)
    assert len(data) < 20_000
    assert same(pickle.loads(data)[3], expected)


def test_a_clip_that_vanishes_under_way_is_named(make: Callable[..., Batches]) -> None:
    batches = make()
    for path in batches.audio.folder.rglob("*.npy"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"\.npy is missing or damaged"):
        batches[0]


def test_tags_name_every_label_of_both() -> None:
    def window(*labels: str) -> Window:
        return Window(Clip(Path("/x"), "x", "s", "source", labels, "CC0", True, "s"), "c", 0, 1)

    sources, noises = [window("fan", "pump"), window("valve")], [window("hiss"), window("rumble", "hiss")]
    vocabulary = Vocabulary.of(sources, noises)
    assert (vocabulary.sources, vocabulary.noises) == (("fan", "pump", "valve"), ("hiss", "rumble"))
    tags = vocabulary.tags(sources, noises)
    assert np.array_equal(tags, [[1, 1, 0, 1, 0], [0, 0, 1, 1, 1]])
    assert tags.shape == (2, len(vocabulary))
    with pytest.raises(KeyError, match="horn"):
        vocabulary.tags([window("horn")], [window("hiss")])
