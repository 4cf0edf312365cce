"""The table and the chart, in the terminal and in docs."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

mpl.use("Agg")
import matplotlib.pyplot as plt

Result = dict[str, Any]

PAGE = Path("docs/index-benchmark.md")
CHART = Path("docs/index-benchmark.png")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
HEADINGS = (
    "engine",
    "objects",
    "filter keeps",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "recall@10",
    "memory B",
    "disk B",
    "Redis B",
    "build s",
    "load ms",
    "upserts/s",
    "deletes/s",
)
# Okabe and Ito's colours, told apart by the colour-blind.
COLOURS = ("#D55E00", "#E69F00", "#000000", "#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#999999")
LEAST_MISSING = 5e-4  # of recall, on the chart
MARKERS = {None: "o", 1.0: "s", 0.1: "^", 0.01: "D", 0.001: "v"}


def print_table(console: Console, results: Sequence[Result]) -> None:
    """All of it."""
    table = Table(box=None)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "engine" else "right")
    for result in results:
        for row in rows(result):
            table.add_row(*row)
    console.print(table)
    for line in (*compactions(results), *targets(results)):
        console.print(f"  {line}")


def rows(result: Result) -> list[tuple[str, ...]]:
    """Lines of the table; what does not depend on the filter stands in the first."""
    first = (result["engine"], f"{result['objects']:,}")
    if "left_out" in result:
        return [(*first, result["left_out"], *[""] * (len(HEADINGS) - 3))]
    count = result["objects"]
    facts = [
        f"{(result['anonymous_bytes'] + result['mapped_bytes']) / count:,.0f}",
        f"{result['disk_bytes'] / count:,.0f}",
        f"{result['redis_bytes'] / count:,.0f}" if result["redis_bytes"] else "",
        f"{result['build_s']:.1f}",
        f"{result['load_ms']:,.0f}",
        f"{result['upserts_per_s']:,.0f}" if "upserts_per_s" in result else "cannot",
        f"{result['deletes_per_s']:,.0f}" if "deletes_per_s" in result else "cannot",
    ]
    lines = [
        (
            *first,
            kept(search["share"]),
            *_times(search),
            _recall(search["recall"]),
            *(facts if not number else [""] * 7),
        )
        for number, search in enumerate(result["searches"])
    ]
    if len(result["searches"]) == 1:
        lines.append((*first, "cannot filter", *[""] * 11))
    if "while_writing" in result:
        busy = result["while_writing"]
        lines.append((*first, "no filter, writing", *_times(busy), *[""] * 8))
    return lines


def kept(share: float | None) -> str:
    """What a filter lets pass."""
    return "no filter" if share is None else f"{100 * share:g} %"


def summary(result: Result) -> str:
    """One line for the terminal."""
    what = f"{result['engine']}, {result['objects']:,}"
    if "left_out" in result:
        return f"{what}: {result['left_out']}"
    found = ", ".join(
        f"{kept(s['share'])}: {s['p50']:.2f} ms, recall {_recall(s['recall'])}" for s in result["searches"]
    )
    return f"{what}: built in {result['build_s']:.1f} s; {found}"


def compactions(results: Sequence[Result]) -> list[str]:
    """What it takes to bring the changes of the run into the next snapshot."""
    lines = []
    for result in results:
        if "compaction_s" in result:
            upload, peak = result["compaction_upload_s"], result["compaction_peak_bytes"] / 1e6
            lines.append(
                f"{result['engine']}, {result['objects']:,}: compaction with {result['compacted_images']:,} "
                f"new images: {result['compaction_s'] - upload:.1f} s, {peak:,.0f} MB at the peak, and "
                f"{upload:.1f} s of upload to the local S3"
            )
    return lines


def targets(results: Sequence[Result]) -> list[str]:
    """What the compact engine is meant to reach, and whether it did."""
    lines = []
    for result in results:
        if result["engine"] != "compact" or "searches" not in result:
            continue
        plain, count = result["searches"][0], result["objects"]
        aims: list[tuple[str, float, str, float]] = []
        if count == 100_000:
            aims = [("p50 ms", plain["p50"], "at most", 2)]
        elif count == 1_000_000:
            aims = [
                ("p50 ms", plain["p50"], "at most", 15),
                ("p99 ms", plain["p99"], "at most", 30),
                ("lowest recall@10", min(s["recall"] for s in result["searches"]), "at least", 0.98),
                ("bytes resident an object", _resident(result), "at most", 110),
                ("load ms", result["load_ms"], "at most", 300),
                ("objects/s of building", count / result["build_s"], "at least", 20_000),
            ]
        for what, value, bound, aim in aims:
            met = value <= aim if bound == "at most" else value >= aim
            lines.append(
                f"compact, {count:,}: {what} {value:,.4g}, target {bound} {aim:,g}: "
                f"{'met' if met else 'missed'}"
            )
    return lines


def write(results: Sequence[Result], path: Path = PAGE, chart: Path = CHART) -> None:
    """Put table and chart between the page's markers. Raises ValueError if the page has none."""
    text = path.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} needs the lines {BEGIN} and {END}")
    draw(results, chart)
    path.write_text(f"{before}{BEGIN}\n\n{markdown(results, chart.name)}\n{END}{after}")


def markdown(results: Sequence[Result], chart: str) -> str:
    """What stands between the markers."""
    lines = [
        f"![Recall against the median time of a search, one panel a size]({chart})",
        "",
        f"*{caption(results)}*",
        "",
    ]
    lines += [_line(HEADINGS), _line(["---", *["---:"] * (len(HEADINGS) - 1)])]
    lines += [_line(row) for result in results for row in rows(result)]
    lines += ["", *(f"- {line}" for line in (*compactions(results), *targets(results))), ""]
    lines += ["| engine | version | parameters |", "|---|---|---|"]
    known = {result["engine"]: result for result in results}
    lines += [_line([r["engine"], r["version"] or "this", r["parameters"]]) for r in known.values()]
    return "\n".join(lines) + "\n"


def caption(results: Sequence[Result]) -> str:
    """On what, and when."""
    machine = results[-1]["machine"]
    loads = [result["machine"]["load_at_end"] for result in results]
    return (
        f"{machine['cores']} cores of {processor()}, one of them for each engine; Python "
        f"{machine['python']}; commit {machine['commit']}, {machine['time'][:10]}; load of the machine "
        f"{min(loads):.1f} to {max(loads):.1f}."
    )


def processor() -> str:
    """The model's name, where the system tells."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def draw(results: Sequence[Result], path: Path) -> None:
    """Recall@10 against p50: a panel a size, a colour an engine, a shape a filter.

    Recall is drawn by what is missing of 1, on a logarithmic axis, since most of it is near 1.
    """
    measured = [result for result in results if "searches" in result]
    sizes = sorted({result["objects"] for result in measured})
    engines = list(dict.fromkeys(result["engine"] for result in measured))
    colour_of = dict(zip(engines, itertools.cycle(COLOURS), strict=False))
    figure, panels = plt.subplots(
        1, len(sizes), figsize=(4.4 * len(sizes), 5), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, size in zip(panels[0], sizes, strict=True):
        for order, result in enumerate(reversed([r for r in measured if r["objects"] == size])):
            style = {"color": colour_of[result["engine"]], "zorder": 2 + order}  # our own on top
            searches = [s for s in result["searches"] if s["recall"] is not None]
            times = [s["p50"] for s in searches]
            missing = [max(1 - s["recall"], LEAST_MISSING) for s in searches]
            panel.plot(times, missing, lw=0.8, alpha=0.5, **style)
            for search, x, y in zip(searches, times, missing, strict=True):
                panel.plot(x, y, MARKERS[search["share"]], ms=8, mec="white", mew=0.6, **style)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_ylim(1, LEAST_MISSING / 1.5)
        panel.set_yticks([1, 0.5, 0.1, 0.02, 0.01, 0.001, LEAST_MISSING])
        panel.set_yticklabels(["0", "0.5", "0.9", "0.98", "0.99", "0.999", "1"])
        panel.minorticks_off()
        panel.set_title(f"{size:,} objects")
        panel.set_xlabel("p50 of a search, ms")
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("recall@10 against exact float")
    shapes = {engine: ("o", colour) for engine, colour in colour_of.items()}
    shapes |= {kept(share): (marker, "#555555") for share, marker in MARKERS.items()}
    named = [
        plt.Line2D([], [], color=colour, marker=marker, ls="", label=label)
        for label, (marker, colour) in shapes.items()
    ]
    figure.legend(handles=named, loc="outside lower center", ncols=7, frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _times(search: Result) -> tuple[str, ...]:
    return tuple(f"{search[name]:.2f}" for name in ("p50", "p95", "p99"))


def _recall(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _resident(result: Result) -> float:
    return float((result["anonymous_bytes"] + result["mapped_bytes"]) / result["objects"])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
