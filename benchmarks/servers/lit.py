"""LitServe after its guide: a worker process per core, a thread each, no batches since those are no faster on a CPU."""

import os
import sys

import litserve
from starlette.requests import Request
from work import Work


class Score(litserve.LitAPI):
    """The hooks of LitServe."""

    def setup(self, device: str) -> None:
        """Load the model, once in each worker."""
        self.work = Work()

    def decode_request(self, request: Request) -> bytes:
        """The clip out of the form."""
        return request["clip"].file.read()

    def predict(self, body: bytes) -> dict[str, float]:
        """Score a clip."""
        return self.work(body)

    def encode_response(self, output: dict[str, float]) -> dict[str, float]:
        """As it is."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        Score(api_path="/score"), accelerator="cpu", workers_per_device=os.cpu_count(), timeout=60, fast_queue=True
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
