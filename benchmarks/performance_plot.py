"""Draw docs/measurements/performance.png from the results of serving.py and search.py.

python benchmarks/performance_plot.py
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from machine import result

IMAGE = Path(__file__).parent.parent / "docs" / "measurements" / "performance.png"
NETWORKS = {"shipped": "offkey-small", "cnn-5m": "CNN of 5 M, random", "vit-b": "ViT-B, random"}
SIDES = ("offkey", "FastAPI", "LitServe", "BentoML")
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
SEARCHES = {"exact_ms": "exact", "hnsw_ms": "HNSW"}


def main() -> None:
    """Draw."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (load, alone, search) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    found = {network: result(f"serving-{network}")["sides"] for network in NETWORKS}
    _bars(load, {name: _of(found[name], 32, "rate_of_in_process") for name in NETWORKS})
    load.set_title("clips/s at 32 at a time, of in process")
    _bars(alone, {name: _of(found[name], 1, "p50_of_in_process") for name in NETWORKS})
    alone.set_title("p50 at one at a time, of in process")
    for axes in (load, alone):
        axes.axhline(1.0, color="black", linewidth=0.8)
        axes.set_ylim(top=1.25 * axes.get_ylim()[1])  # room for the legend
        axes.legend(fontsize=8, loc="upper center", ncols=len(SIDES))
    rows = result("search")["rows"]
    for (name, label), color in zip(SEARCHES.items(), COLORS, strict=False):
        search.loglog([row["windows"] for row in rows], [row[name] for row in rows], "o-", color=color, label=label)
    search.set_xlabel("windows in a bank")
    search.set_title("search for one window, ms")
    search.legend(fontsize=8)
    search.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    search.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    figure.savefig(IMAGE, dpi=110)


def _of(sides: dict[str, dict[str, float]], concurrency: int, figure: str) -> list[float]:
    return [sides.get(f"{side} @{concurrency}", {}).get(figure, 0.0) for side in SIDES]


def _bars(axes: Any, groups: dict[str, list[float]]) -> None:  # matplotlib's axes have no types
    width = 0.8 / len(SIDES)
    for at, (side, color) in enumerate(zip(SIDES, COLORS, strict=True)):
        places = [group + (at - (len(SIDES) - 1) / 2) * width for group in range(len(groups))]
        bars = axes.bar(places, [values[at] for values in groups.values()], width, color=color, label=side)
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    axes.set_xticks(range(len(groups)), [NETWORKS[name] for name in groups])


if __name__ == "__main__":
    main()
