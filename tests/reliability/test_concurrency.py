"""Readers and writers at once: every score is that of the bank at the generation which it names.

What a bank was at a generation is put together from the writers' answers alone, and what it must answer then is
computed from embeddings, without store, cache or index.
"""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi.testclient import TestClient

from offkey.vocabulary import Domain
from service.app import create_app
from service.settings import Settings
from service.usecases.clip import Clip
from service.usecases.service import Service
from torture import scaled

CHANGES = scaled(200, 15)  # of each writer
WRITERS, READERS = 3, 4
CLIPS = 24


@dataclass
class History:
    """What became of a machine, by generation, and what was scored meanwhile."""

    added: dict[int, tuple[int, Domain, int]] = field(default_factory=dict)  # clip id, domain, number of the clip
    deleted: dict[int, int] = field(default_factory=dict)  # clip id
    scored: list[dict[str, Any]] = field(default_factory=list)
    acknowledged: int = 0  # generation

    def bank(self, generation: int) -> dict[int, tuple[Domain, int]]:
        found: dict[int, tuple[Domain, int]] = {}
        for step in range(1, generation + 1):
            if step in self.added:
                clip_id, domain, number = self.added[step]
                found[clip_id] = (domain, number)
            else:
                del found[self.deleted[step]]
        return found


class Writer:
    """Enrolls and deletes clips of its own, on any of the machines."""

    def __init__(self, api: TestClient, histories: dict[str, History], clips: list[bytes], own: range) -> None:
        self.api, self.histories, self.clips = api, histories, clips
        self.own = {(machine, number): 0 for machine in histories for number in own}  # clip id, 0: not enrolled
        self.rng = random.Random(own.start)

    def work(self) -> None:
        for _ in range(CHANGES):
            machine, number = self.rng.choice(list(self.own))
            history, clip_id = self.histories[machine], self.own[machine, number]
            if clip_id:
                answer = self.api.delete(f"/machines/{machine}/clips/{clip_id}")
                assert answer.status_code == 200, answer.text
                history.deleted[answer.json()["generation"]] = clip_id
                self.own[machine, number] = 0
            else:
                domain = self.rng.choice(list(Domain))
                said = {"machine_id": machine, "domain": domain.value, "force": "true"}
                answer = self.api.post("/enroll", params=said, content=self.clips[number])
                assert answer.status_code == 201, answer.text
                clip_id = self.own[machine, number] = answer.json()["clips"][0]["clip_id"]
                history.added[answer.json()["generation"]] = (clip_id, domain, number)
            history.acknowledged = max(history.acknowledged, answer.json()["generation"])


def read(api: TestClient, histories: dict[str, History], probes: list[bytes], seed: int, done: threading.Event) -> None:
    rng = random.Random(seed)
    while not done.is_set():
        machine, number = rng.choice(list(histories)), rng.randrange(len(probes))
        acknowledged = histories[machine].acknowledged
        answer = api.post("/score", params={"machine_id": machine}, content=probes[number])
        if answer.status_code == 409:  # there is no bank, or none that can be scored with
            continue
        assert answer.status_code == 200, answer.text
        assert answer.json()["generation"] >= acknowledged  # whatever was acknowledged before counts
        histories[machine].scored.append({**answer.json(), "probe": number})


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(("machines", "exact_limit"), [(1, 10_000), (1, 1), (scaled(200, 12), 10_000)])
def test_every_answer_is_right_for_its_generation(
    settings: Settings,
    fan: Callable[..., bytes],
    oracle: Callable[..., Any],
    sounds: Callable[..., Any],
    machines: int,
    exact_limit: int,
) -> None:
    clips = [fan(number, seconds=1.0) for number in range(CLIPS)]
    probes = [fan(100 + number, seconds=1.0, severity=number / 4) for number in range(4)]
    histories = {f"fan-{number}": History() for number in range(machines)}
    limits = settings.limits.model_copy(update={"exact_limit": exact_limit})
    own = settings.model_copy(update={"limits": limits, "workers": WRITERS + READERS, "bank_cache_mb": 4})
    with TestClient(create_app(Service.open(own)), raise_server_exceptions=False) as api:
        for machine in histories:
            api.put(f"/machines/{machine}")
        share = CLIPS // WRITERS
        writers = [Writer(api, histories, clips, range(at * share, (at + 1) * share)) for at in range(WRITERS)]
        done = threading.Event()
        with ThreadPoolExecutor(WRITERS + READERS) as pool:
            reading = [pool.submit(read, api, histories, probes, seed, done) for seed in range(READERS)]
            writing = [pool.submit(writer.work) for writer in writers]
            try:
                for one in writing:
                    one.result(900)
            finally:
                done.set()
            for one in reading:
                one.result(60)
        embedded = sounds(api.app.state.service)
        checked = 0
        for history in histories.values():
            generations = sorted([*history.added, *history.deleted])
            assert generations == list(range(1, len(generations) + 1))  # none twice, none without an answer
            for answer in history.scored:
                members = history.bank(answer["generation"])
                right = oracle(
                    [
                        (clip_id, domain, None, Clip("", clips[number]))
                        for clip_id, (domain, number) in sorted(members.items())
                    ],
                    embedded,
                )
                probe = Clip("", probes[answer["probe"]])
                (clip,) = answer["clips"]
                assert clip["anomaly_score"] == pytest.approx(right.score(probe), rel=1e-4, abs=1e-4)
                assert clip["windows"][0]["neighbors"][0]["clip_id"] in right.nearest(right.embedded(probe).vectors[0])
                checked += 1
    assert checked > 20
