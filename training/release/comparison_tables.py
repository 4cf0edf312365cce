"""A comparison on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from training.release.compare import CategoryChange, Comparison, MetricComparison, SetComparison

STYLES = {"better": "green", "worse": "red", "no difference shown": "dim"}


def metrics_table(comparison: Comparison) -> Table:
    """A line a set and metric. `detectable` is how large a difference so many queries would have shown."""
    table = Table(box=None, pad_edge=False, collapse_padding=True)  # it fits 80 columns
    for heading, justify in (
        ("set", "left"),
        ("metric", "left"),
        ("A", "right"),
        ("B", "right"),
        ("B - A", "right"),
        ("95 %", "right"),
        ("p", "right"),
        ("detectable", "right"),
        ("verdict", "left"),
    ):
        table.add_column(heading, justify=justify, no_wrap=heading != "set", overflow="fold")  # type: ignore[arg-type]
    for row in comparison.metrics():
        table.add_row(
            row.set,
            row.metric,
            f"{row.mean_a:.3f}",
            f"{row.mean_b:.3f}",
            f"{row.difference:+.3f}",
            f"{row.low:+.3f} {row.high:+.3f}",
            p_text(row.p_adjusted),
            f"{row.detectable:.3f}",
            Text(row.verdict.replace("no difference shown", "not shown"), STYLES[row.verdict]),
        )
    return table


def p_text(p: float) -> str:
    """Three decimals are enough to judge by."""
    return "<.001" if p < 0.001 else f"{p:.3f}"


def verdict_text(row: MetricComparison) -> str:
    """The verdict; where none was shown, how small a difference so many queries would have shown."""
    if row.verdict != "no difference shown":
        return row.verdict
    return f"no difference shown ({row.queries} queries would show {row.detectable:.3f})"


def categories_table(entry: SetComparison, most: int) -> Table:
    """The `most` lost and the `most` won categories of a set."""
    table = Table("category", box=None, pad_edge=False)
    for heading in ("queries", "only A right", "only B right", "net"):
        table.add_column(heading, justify="right")
    for change in _ends(entry.categories, most):
        if change is None:
            table.add_row("...")
            continue
        net = Text(f"{change.net:+d}", "green" if change.net > 0 else "red" if change.net < 0 else "dim")
        table.add_row(
            change.category or "(none)", str(change.queries), str(change.only_a), str(change.only_b), net
        )
    return table


def flips_text(entry: SetComparison, most: int) -> Iterator[str]:
    """Names of the queries that changed sides, at most `most` each way."""
    for side, words in (("A", "lost"), ("B", "won")):
        names = [f"{flip.query} ({flip.category or '-'})" for flip in entry.flips if flip.right == side]
        if names:
            rest = f" and {len(names) - most} more" if len(names) > most else ""
            yield f"{words} ({len(names)}): {', '.join(names[:most])}{rest}"


def _ends(changes: tuple[CategoryChange, ...], most: int) -> Iterator[CategoryChange | None]:
    if len(changes) <= 2 * most:
        yield from changes
        return
    yield from changes[:most]
    yield None
    yield from changes[-most:]
