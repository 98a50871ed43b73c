"""Every example in docs/how-to/training-data.md: its files, its config and the clips that come out."""

import re
import tomllib
from pathlib import Path

import pytest

from training.data.layouts import LAYOUTS, read_collections
from training.data.layouts.collection import Collection

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "training-data.md"


def sections() -> dict[str, str]:
    parts = re.split(r"^## `(\w+)`$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(section: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


def test_every_layout_is_shown() -> None:
    assert set(sections()) == set(LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_examples(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = sections()[layout]
    tables = iter(blocks(section, "csv"))
    for line in blocks(section, "text tree")[0].splitlines():
        path = tmp_path / line
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(next(tables) if path.suffix == ".csv" else "sound")
    monkeypatch.chdir(tmp_path)
    written = tomllib.loads(blocks(section, "toml")[0])["data"]["collections"]
    found = read_collections(
        Collection(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})
        for table in written
    )
    listed = [f"{clip.name}: {', '.join(clip.labels)}" for clip in found.clips]
    assert listed == blocks(section, "text clips")[0].splitlines()
    assert all(clip.path.is_file() for clip in found.clips)
