"""The table of settings in docs/reference/training-settings.md and the config cannot part."""

import json
import re
from pathlib import Path

from training.config import Config, to_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "training-settings.md"


def test_every_key_is_listed_with_its_default() -> None:
    expected = {}
    for section, value in to_table(Config()).items():
        for key, default in value.items() if isinstance(value, dict) else [("", value)]:
            expected[f"{section}.{key}".rstrip(".")] = json.dumps(default)
    listed = dict(re.findall(r"^\| `([a-z_.]+)` \| `(.*?)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == expected
