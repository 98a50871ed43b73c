"""BentoML after its guide: a worker process per core, a thread each, no batches since those are no faster on a CPU."""

import os
from pathlib import Path

import bentoml
from work import Work


@bentoml.service(workers=os.cpu_count(), traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Score:
    """The service; `bentoml serve bento:Score` runs it."""

    def __init__(self) -> None:
        self.work = Work()

    @bentoml.api(route="/score")
    def score(self, clip: Path) -> dict[str, float]:
        """Score a clip out of the form."""
        return self.work(clip.read_bytes())
