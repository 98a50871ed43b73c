"""Every link in the docs leads to a file and a heading that exist, and the index leads to every page."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = [*REPOSITORY.glob("*.md"), *sorted(DOCS.rglob("*.md")), *sorted(REPOSITORY.glob("models/*/*/CARD.md"))]


def links(page: Path) -> list[tuple[Path, str]]:
    """Return the target file and anchor of each link to a file; images are links too."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not link.startswith(("http:", "https:")):
            name, _, anchor = link.partition("#")
            found.append(((page.parent / name).resolve() if name else page, anchor))
    return found


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), f"no file {target}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"no heading #{anchor} in {target.relative_to(REPOSITORY)}"


def test_the_index_leads_to_every_page() -> None:
    reached, waiting = set[Path](), [DOCS / "README.md"]
    while waiting:
        page = waiting.pop()
        if page.suffix == ".md" and page not in reached:
            reached.add(page)
            waiting += [target for target, _ in links(page) if target.is_file()]
    assert set(DOCS.rglob("*.md")) <= reached


@pytest.mark.parametrize("folder", ["service", "offkey", "training", "benchmarks", "tests"])
def test_pages_named_in_code_exist(folder: str) -> None:
    for path in (REPOSITORY / folder).rglob("*.py"):
        for page in re.findall(r"\bdocs/[\w/-]+\.(?:md|png)", path.read_text(encoding="utf-8")):
            assert (REPOSITORY / page).is_file(), f"{path.relative_to(REPOSITORY)} names {page}"
