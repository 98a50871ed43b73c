"""Fill docs/measurements/performance.md with the figures of results/*.json.

python benchmarks/performance_page.py

The page's words are written by hand; what stands between `<!-- measured: NAME -->` and `<!-- end -->` is written here,
so that no figure there is of another run than its result.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from machine import RESULTS, result

PAGE = Path(__file__).parent.parent / "docs" / "measurements" / "performance.md"
NETWORKS = {"shipped": "shipped", "cnn-5m": "CNN", "vit-b": "ViT-B"}
SIDES = {
    "offkey": "Offkey",
    "offkey, localize=false": "Offkey, `localize=false`",
    "FastAPI": "FastAPI, pool of threads",
}
STAGES = ("receive", "queue", "decode", "measure", "embed", "search", "localize", "other")
AUDIO = {"WAV 16000 Hz": "WAV, 16 kHz", "WAV 48000 Hz": "WAV, 48 kHz", "FLAC 16000 Hz": "FLAC, 16 kHz"}
_BLOCK = re.compile(r"(<!-- measured: ([a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Write the page."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(PAGE)


def filled(page: str) -> str:
    """Return the page with new blocks. Raises KeyError for an unknown block."""
    return _BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}\n{found[3]}", page)


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; all columns but the first hold numbers."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machines_measured() -> str:
    """Which result is of which processor."""
    of: dict[str, list[str]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        if path.stem in _SHOWN:
            about = result(path.stem)["machine"]
            of.setdefault(f"{about['cores']} cores of {about['processor']}", []).append(f"`{path.stem}`")
    return "\n".join(f"- {processor}: {', '.join(names)}" for processor, names in of.items())


def serving(network: str) -> str:
    """Every side: clips per second and what they cost at 32 at a time, and the time of one that is alone."""
    found = result(f"serving-{network}")
    sides, versions = found["sides"], found["peers"]
    rows = []
    for name in dict.fromkeys(key.rpartition(" @")[0] for key in sides):
        busy_threads, alone = sides.get(f"{name} @32"), sides.get(f"{name} @1")
        title = SIDES.get(name, f"{name} {versions[name]}" if name in versions else name)
        rows.append([title, *(show(busy_threads) if busy_threads else "" for show in AT_32.values())])
        rows[-1] += [show(alone) if alone else "" for show in AT_1.values()]
    return markdown(["", *AT_32, *AT_1], rows)


def rounds() -> str:
    """How often, and what the generator took."""
    found = {title: result(f"serving-{name}") for name, title in NETWORKS.items()}
    often = ", ".join(f"{title} {one['rounds']}" for title, one in found.items())
    shares = [side["generator"] for one in found.values() for key, side in one["sides"].items() if "process" not in key]
    return f"Rounds: {often}. The load generator took {min(shares):.0%} to {max(shares):.0%} of the cores."


def stages() -> str:
    """Medians of `timing_ms`."""
    found = result("stages")["milliseconds"]
    rows = [
        [f"`{name}`" if name in STAGES else name, *(f"{one.get(name, 0.0):.2f}" for one in found.values())]
        for name in (*STAGES, "total", "seen by the client")
    ]
    return markdown(["stage, ms", *found], rows)


def overload() -> str:
    """Answers and refusals at many times the capacity."""
    found = result("overload")
    rows = []
    for times, load in found["load"].items():
        sent = sum(answer["rate"] for answer in load["answers"].values())
        for status, answer in load["answers"].items():
            kind = "answered" if status == "200" else "refused"
            rows.append([f"{times} times", f"{sent:.0f}", kind, f"{answer['rate']:.0f}", *_percentiles(answer)])
    return markdown(["offered, of capacity", "sent/s", "", "per s", "p50, ms", "p90, ms", "p99, ms"], rows)


def encoder() -> str:
    """Compare the graph with its predecessor."""
    found = result("encoder")
    times, shares = found["milliseconds"], found["shares"]
    rows = [[f"`{found['bundle']}`", f"{times['this']:.2f}"]]
    same = ""
    if "other" in times:
        rows += [["the other graph", f"{times['other']:.2f}"], ["ratio, median over rounds", f"{found['ratio']:.2f}"]]
        same = f"Embeddings of the two differ by {found['largest_difference_of_embeddings']:.0e} at most. "
    parts = [
        f"{part} {sum(share for name, share in shares.items() if name.startswith(part)):.0%}"
        for part in ("front end", "layers", "read-out")
    ]
    return f"{markdown(['', 'ms'], rows)}\n\n{same}Of its time, by the profiler of ONNX Runtime: {', '.join(parts)}."


def batches() -> str:
    """Time per window by size of a batch."""
    found = result("encoder")["batches"]["milliseconds_per_window"]
    return markdown(["windows in a batch", *found], [["ms per window", *(f"{value:.2f}" for value in found.values())]])


def decoding() -> str:
    """Where a clip is decoded."""
    found = result("decoding")
    rows = [
        [
            title,
            *(f"{1e3 * found[name][field]:.2f}" for field in ("in_process", "in_child", "added")),
            _plain(found[name]),
        ]
        for name, title in AUDIO.items()
    ]
    return markdown(["", "in process, ms", "in a child, ms", "added, ms", "plain, ms"], rows)


def enrollment() -> str:
    """Enrolling a folder beside scoring it."""
    found = result("enrollment")["clips_per_s"]
    return markdown(
        ["", "clips/s", "of scoring"],
        [[name, f"{rate:.0f}", f"{rate / found['score']:.2f}"] for name, rate in found.items()],
    )


def search() -> str:
    """Exact search and graph by size of a bank, and where one pays."""
    rows = result("search")["rows"]
    columns = {
        "exact, ms": "exact_ms",
        "HNSW, ms": "hnsw_ms",
        "HNSW build, s": "hnsw_build_s",
        "recall, HNSW": "hnsw_recall",
    }
    digits = {"hnsw_build_s": 1, "hnsw_recall": 3}
    lines = [
        [f"{row['windows']:,}", *(f"{row[field]:.{digits.get(field, 2)}f}" for field in columns.values())]
        for row in rows
    ]
    of = {row["windows"]: row for row in rows}
    saved = of[10_000]["exact_ms"] - of[10_000]["hnsw_ms"]
    build = of[10_000]["hnsw_build_s"]
    share = of[1_000]["exact_ms"] / result("stages")["milliseconds"]["one at a time"]["total"]
    pays = (
        f"At 10,000 windows the graph saves {saved:.1f} ms a search and takes {build:.1f} s to build after each change "
        f"of the bank: it pays from some {1e3 * build / saved:,.0f} searches between two changes on."
        if saved > 0
        else "At 10,000 windows the graph saves nothing."
    )
    return (
        f"{markdown(['windows', *columns], lines)}\n\n{pays} Exact search among 1,000 windows is {share:.1%} of a "
        "request that is alone."
    )


def many_machines() -> str:
    """Start, throughput and memory by the number of machines."""
    found = result("machines")
    columns = {
        "start to ready, s": ("start_s", 1),
        "clips/s": ("clips_per_s", 0),
        "p50, ms": ("p50_ms", 0),
        "p99, ms": ("p99_ms", 0),
        "memory of the process, MiB": ("resident_mib", 0),
    }
    rows = [
        [f"{row['machines']:,}", *(f"{row[name]:,.{digits}f}" for name, digits in columns.values())]
        for row in found["rows"]
    ]
    cold = found["cold"]
    return (
        f"{markdown(['machines', *columns], rows)}\n\nThe first score of a machine of {cold['windows']:,} windows that "
        f"is not in memory, as after a restart, takes {cold['cold_ms']:.0f} ms, the second {cold['warm_ms']:.0f} ms: "
        f"{cold['more_ms']:.0f} ms more (95th percentile {cold['more_p95_ms']:.0f})."
    )


def training() -> str:
    """Compare a training step with its networks alone."""
    found = result("training_step")
    times = found["milliseconds"]
    first, cached = found["step_over_networks_alone"], found["cached_step_over_first"]
    rows = [
        ["student, forward and backward, alone", f"{times['student']:.0f}"],
        ["teacher, forward on sources and noises, alone", f"{times['teacher']:.0f}"],
        [
            "whole step, the teacher embeds each window for the first time",
            f"{times['first']:.0f}, {first:.2f} of the two alone",
        ],
        ["whole step, the teacher's cache filled", f"{times['cached']:.0f}, {cached:.2f} of the first"],
        ["of which waiting for the loader", f"{times['wait']:.1f}"],
    ]
    return markdown(["", "ms"], rows)


def _percentiles(answer: dict[str, float]) -> list[str]:
    return [f"{1e3 * answer[name]:.0f}" for name in ("p50", "p90", "p99")]


def _plain(found: dict[str, float]) -> str:
    return f"{1e3 * found['plain']:.2f}" if "plain" in found else ""


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.{1 if seconds < 0.1 else 0}f}"


def _rate(clips: float) -> str:
    return f"{clips:.{1 if clips < 100 else 0}f}"


AT_32: dict[str, Callable[[dict[str, float]], str]] = {
    "clips/s": lambda side: _rate(side["rate"]),
    "of in process": lambda side: f"{side['rate_of_in_process']:.2f}",
    "p99, ms": lambda side: _milliseconds(side["p99"]),
    # Nothing where the work is done by processes of a session that is not the server's.
    "CPU a clip, ms": lambda side: _milliseconds(side["cpu"]) if side["cpu"] > 0 else "",
}
AT_1: dict[str, Callable[[dict[str, float]], str]] = {
    "alone, p50, ms": lambda side: _milliseconds(side["p50"]),
    "times in process": lambda side: f"{side['p50_of_in_process']:.2f}",
}
_SHOWN = {
    *(f"serving-{name}" for name in NETWORKS),
    *("stages", "overload", "encoder", "decoding", "enrollment", "search", "machines", "training_step"),
}
BLOCKS: dict[str, Callable[[], str]] = {
    "machines-measured": machines_measured,
    **{f"serving-{network}": partial(serving, network) for network in NETWORKS},
    "rounds": rounds,
    "stages": stages,
    "overload": overload,
    "encoder": encoder,
    "batches": batches,
    "decoding": decoding,
    "enrollment": enrollment,
    "search": search,
    "machines": many_machines,
    "training": training,
}


if __name__ == "__main__":
    main()
