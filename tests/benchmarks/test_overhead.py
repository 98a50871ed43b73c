"""Guards against slow changes, in ratios and counts, because seconds depend on the machine."""

import statistics
import time
from collections.abc import Callable

import torch
from fastapi.testclient import TestClient
from threadpoolctl import threadpool_limits
from torch.utils.flop_counter import FlopCounterMode

from service.audio.budget import UNLIMITED
from service.audio.decode import AudioLimits
from service.audio.plain_wav import read_plain_wav
from service.domain.access import ANONYMOUS
from service.usecases.clip import Clip
from service.usecases.score import ScoreOptions, score_clips
from training.encoders.efficientat import MelFrontEnd

# Measured 1.5. Most of the time of a request should be spent in the model.
MAX_RATIO = 2.0


def test_a_request_costs_little_more_than_the_model(api: TestClient, fan: Callable[..., bytes]) -> None:
    service, clip = api.app.state.service, fan(99, seconds=10.0)
    encoder = service.encoders.current
    api.put("/machines/fan-1")
    files = [("clips", (f"{number}.wav", fan(number, seconds=10.0))) for number in range(4)]
    assert api.post("/enroll", params={"machine_id": "fan-1"}, files=files).status_code == 201
    waveform = read_plain_wav(clip, encoder.sample_rate, AudioLimits(), UNLIMITED)
    assert waveform is not None

    def model() -> None:
        encoder.embed(waveform.samples)

    def request() -> None:
        score_clips(service.call(ANONYMOUS), "fan-1", [Clip("clip.wav", clip)], ScoreOptions(localize=True))

    ratios = []
    with threadpool_limits(1, user_api="blas"):
        for _ in range(25):
            spent = []
            for side in (model, request):
                start = time.thread_time()
                side()
                spent.append(time.thread_time() - start)
            ratios.append(spent[1] / spent[0])
    assert statistics.median(ratios[5:]) < MAX_RATIO


def test_the_spectrum_takes_half_the_products_of_a_dense_matrix() -> None:
    front_end, frames = MelFrontEnd(16_000), 1_000
    with FlopCounterMode(display=False) as counter:
        front_end(torch.zeros(1, 160_000))
    dense = 2 * frames * (480 * 514 + 257 * front_end.bands)
    assert counter.get_total_flops() < 0.65 * dense
