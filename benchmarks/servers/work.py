"""What every server under comparison does with a clip: decode, embed, search. Nothing of Offkey is imported here."""

import io
import os

import numpy as np
import onnxruntime as ort
import soundfile


class Work:
    """A session of its own and the bank; `threads` are those of one run of the model."""

    def __init__(self, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # The same ONNX file and embeddings for all.
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
        self.bank = np.load(os.environ["BENCH_BANK"])  # (windows, dim)

    def __call__(self, body: bytes) -> dict[str, float]:
        """The cosine distance of a WAV clip to its nearest neighbor in the bank, by exact search."""
        samples, _ = soundfile.read(io.BytesIO(body), dtype="float32")
        (embedding,) = self.session.run(["embedding"], {"waveform": samples[None, :]})
        return {"score": float(1.0 - (self.bank @ embedding[0]).max())}
