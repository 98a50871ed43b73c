"""Guards against slow changes, in ratios and counts: seconds would measure the machine that runs the tests."""

import statistics
import time
from collections.abc import Callable

import torch
from fastapi.testclient import TestClient
from threadpoolctl import threadpool_limits
from torch.utils.flop_counter import FlopCounterMode

from service.audio.budget import UNLIMITED
from service.audio.decode import AudioLimits
from service.audio.plain_wav import read_pcm
from service.usecases.clip import Upload
from service.usecases.score import score_clips
from training.encoders.efficientat import MelFrontEnd

# Measured 1.5; a model that is the larger part of a request is the point of it all.
MOST_OF_MODEL = 2.0


def test_a_request_costs_little_beside_the_model(api: TestClient, fan: Callable[..., bytes]) -> None:
    context, clip = api.app.state.service, fan(99, seconds=10.0)
    encoder = context.encoders.current
    api.put("/machines/fan-1")
    files = [("clips", (f"{number}.wav", fan(number, seconds=10.0))) for number in range(4)]
    assert api.post("/enroll", params={"machine_id": "fan-1"}, files=files).status_code == 201
    heard = read_pcm(clip, encoder.sample_rate, AudioLimits(), UNLIMITED)
    assert heard is not None

    def model() -> None:
        encoder.embed(heard.samples)

    def request() -> None:
        score_clips(context, "fan-1", [Upload("clip.wav", clip)], 1, localize=True)

    ratios = []
    with threadpool_limits(1, user_api="blas"):
        for _ in range(25):
            spent = []
            for side in (model, request):
                start = time.thread_time()
                side()
                spent.append(time.thread_time() - start)
            ratios.append(spent[1] / spent[0])
    assert statistics.median(ratios[5:]) < MOST_OF_MODEL


def test_the_spectrum_takes_half_the_products_of_a_dense_matrix() -> None:
    front_end, frames = MelFrontEnd(16_000), 1_000
    with FlopCounterMode(display=False) as counter:
        front_end(torch.zeros(1, 160_000))
    dense = 2 * frames * (480 * 514 + 257 * front_end.bands)
    assert counter.get_total_flops() < 0.65 * dense
