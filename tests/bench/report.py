"""What the figures look like: a table for people, a chart in the build folder."""

from __future__ import annotations

import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

Figures = dict[str, dict[str, dict[str, list[float]]]]  # workload -> contender -> figure -> one value a repetition

TITLES = {
    "W1": "W1: a 10-step run, one at a time", "W2": "W2: 1,000 runs x 5 steps, 100 in flight", "W3": "W3: fan-out of 1,000 items and join",
    "W4": "W4: 1,000 steps of 1 KB in one run", "W5": "W5: 2,000 runs parked, then resumed", "W6": "W6: worker killed in a 20-step run",
}  # fmt: skip
MAIN = {"W1": "p50_ms", "W2": "steps_per_s", "W3": "seconds", "W4": "last_to_first", "W5": "resume_s", "W6": "seconds"}
FLOOR = "jetstream"


def print_tables(figures: Figures, absent: dict[str, str]) -> None:
    console = Console()
    for workload, contenders in figures.items():
        names = sorted({name for found in contenders.values() for name in found})
        table = Table("contender", *names, title=TITLES[workload], title_justify="left")
        for contender, found in contenders.items():
            table.add_row(contender, *(_cell(found.get(name)) for name in names))
        console.print(table)
    for peer, why in absent.items():
        console.print(f"absent: {peer}: {why}")


def _cell(values: list[float] | None) -> str:
    if not values:
        return ""
    middle = f"{statistics.median(values):,.3g}" if statistics.median(values) < 1000 else f"{statistics.median(values):,.0f}"
    return middle if len(values) == 1 else f"{middle} [{min(values):,.3g}-{max(values):,.3g}]"


def draw(figures: Figures, path: Path) -> None:
    """Bars of each workload's main figure, logarithmic where it is a time or a rate."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure, plots = pyplot.subplots(1, len(figures), figsize=(3.2 * len(figures), 3.4), squeeze=False)
    for plot, (workload, contenders) in zip(plots[0], figures.items(), strict=True):
        values = {c: statistics.median(f[MAIN[workload]]) for c, f in contenders.items() if MAIN[workload] in f}
        bars = plot.bar(list(values), list(values.values()), color=["#c2410c" if c == "noria" else "#94a3b8" for c in values])
        plot.bar_label(bars, fmt="%.3g", fontsize=8)
        plot.set_title(f"{workload}  {MAIN[workload]}", fontsize=9)
        if workload != "W4":
            plot.set_yscale("log")
        plot.tick_params(axis="x", labelrotation=35, labelsize=8)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
