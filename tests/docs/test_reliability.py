"""docs/reliability.md names existing tests, at least one for each guarantee."""

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "reliability.md").read_text()


def functions(path: Path) -> set[str]:
    """Return the names of the tests in a file, including those of classes."""
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)} | {
        name.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign)
        for name in node.targets
        if isinstance(name, ast.Name)
    }


def test_every_guarantee_names_existing_tests() -> None:
    guarantees = re.split(r"^## (?=\d\. )", PAGE, flags=re.MULTILINE)[1:]
    assert [guarantee[0] for guarantee in guarantees] == list("123456")
    for guarantee in guarantees:
        named = re.findall(r"^- (tests/\S+\.py)::(test_\w+)$", guarantee, re.MULTILINE)
        assert named, guarantee[:40]
        for file, name in named:
            assert name in functions(REPOSITORY / file), f"{file}::{name}"


def test_every_reliability_test_is_named() -> None:
    for path in (REPOSITORY / "tests" / "reliability").glob("test_*.py"):
        assert f"tests/reliability/{path.name}::" in PAGE, path.name


def test_deadlines_do_not_depend_on_the_time_of_day() -> None:
    """No code uses `time.time()` or naive dates. Dates are made only to be stored or compared with stored ones."""
    dated = set()
    for path in (REPOSITORY / "service").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"\btime\.time\(|datetime\.utcnow\(|datetime\.now\(\)", text), path
        if "datetime.now(UTC)" in text:
            dated.add(path.relative_to(REPOSITORY / "service").as_posix())
    assert dated <= {
        "store/idempotency.py",
        "store/audit.py",
        "store/clips.py",
        "store/jobs.py",
        "store/keys.py",
        "store/noise.py",
        "store/snapshot/write.py",
        "store/transaction.py",
        "usecases/drift.py",
        "usecases/score.py",
    }
