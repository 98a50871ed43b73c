"""docs/how-to/deploy.md adds up to the memory that docker-compose.yml allows."""

import re
from pathlib import Path

from service.audio.processes import OVERHEAD_BYTES
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
MEBIBYTE = 2**20


def test_the_compose_file_gives_what_its_requests_can_take(settings: Settings) -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    given = dict(re.findall(r"\$\{(OFFKEY_\w+):-(\w+)\}", compose))
    workers, places = int(given["OFFKEY_WORKERS"]), int(given["OFFKEY_QUEUE_LIMIT"])
    bodies = (workers + places + 1) * settings.limits.max_body_bytes / MEBIBYTE
    clips = workers * 9 / 8 * 4 * settings.limits.max_clip_seconds * 16_000 / MEBIBYTE
    decoders = workers * (settings.limits.max_body_bytes + OVERHEAD_BYTES) / MEBIBYTE
    page = (ROOT / "docs" / "how-to" / "deploy.md").read_text()
    assert f"({workers} + {places} + 1) x {settings.limits.max_body_bytes // MEBIBYTE} MiB = {bodies:.0f} MiB" in page
    assert f"{workers} x {clips / workers:.0f} MiB = {clips:.0f} MiB" in page
    assert f"{workers} x {decoders / workers:.0f} MiB = {decoders:.0f} MiB" in page
    assert given["OFFKEY_MEMORY"] == "2g"
    assert 300 + bodies + clips + decoders < 2 * 1024 * 3 / 4  # a quarter is for memory banks


def test_the_compose_file_passes_only_variables_that_are_settings() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    passed = re.findall(r"^ {6}(OFFKEY_\w+):", compose, re.MULTILINE)
    assert passed
    assert set(passed) <= {f"OFFKEY_{name}".upper() for name in Settings.model_fields}
