"""An evaluation as plain numbers: what `report.json` holds and the page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation import ranking
from training.evaluation.bootstrap import LEVEL, RESAMPLES, intervals
from training.evaluation.evaluation import Evaluation, SetEvaluation, SpaceMap
from training.evaluation.metrics import GAIN, METRICS
from training.evaluation.result import SetResult
from training.evaluation.worst_cases import worst_cases

WORST = 12  # cases shown of a set

DEFINITIONS = {
    "recall@k": "Share of queries with a right picture among the first k.",
    "mrr": "Mean of 1 / place of the first right picture.",
    "ndcg@10": f"Discounted gain of the first 10 pictures over that of the best possible order; gain {GAIN}.",
    "map@r": "Precision at each right place among the first R, over R = number of right pictures "
    "(Musgrave et al. 2020).",
    "interval": f"{LEVEL:.0%} bootstrap interval (BCa), {RESAMPLES} resamples of the queries.",
}


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """JSON-ready. Shares are in [0, 1]; `drop` and `difference` too."""
    return {
        "definitions": DEFINITIONS,
        "sets": [_set(one) for one in evaluation.sets],
        "maps": {space: _map(drawn) for space, drawn in evaluation.maps.items()},
        "map_notes": list(evaluation.map_notes),
    }


def estimates(
    result: SetResult, peer: SetResult | None, rows: NDArray[np.bool_] | None = None
) -> dict[str, dict[str, float]]:
    """Metric -> value, low, high; where there is a peer its value, and the difference with its interval."""
    chosen = slice(None) if rows is None else rows
    own = np.stack([result.metrics[metric][chosen] for metric in METRICS])
    bounds = intervals(own)
    found = {
        metric: {"value": float(own[i].mean()), "low": float(bounds[i, 0]), "high": float(bounds[i, 1])}
        for i, metric in enumerate(METRICS)
    }
    if peer is not None:
        theirs = np.stack([peer.metrics[metric][chosen] for metric in METRICS])
        between = intervals(own - theirs)  # paired: the same queries
        for i, metric in enumerate(METRICS):
            found[metric] |= {
                "peer": float(theirs[i].mean()),
                "difference": float((own[i] - theirs[i]).mean()),
                "difference_low": float(between[i, 0]),
                "difference_high": float(between[i, 1]),
            }
    return found


def _set(one: SetEvaluation) -> dict[str, Any]:
    entry, result = one.entry, one.result
    graded = (
        f"right {ranking.RIGHT:.0f}, the same {entry.related} {ranking.RELATED:.0f}, else 0"
        if entry.related
        else "right 1, else 0"
    )
    return {
        "name": entry.name,
        "relevant": entry.relevant,
        "space": entry.space if entry.space in one.spaces else next(iter(one.spaces)),
        "protected": entry.protected,
        "queries": len(result.queries),
        "without_answer": one.ranking.without_answer,
        "gallery": len(one.ranking.gallery),
        "left_out": entry.leave_out if entry.gallery is None else None,
        "grades": graded,
        "metrics": estimates(result, one.peer),
        "spaces": {space: estimates(other, None) for space, other in one.spaces.items()},
        "seen": _groups(result, one.peer, "seen"),
        "categories": sorted(
            _groups(result, one.peer, "category"), key=lambda group: group["metrics"]["recall@1"]["value"]
        ),
        "conditions": _conditions(one),
        "probes": {name: {**asdict(found), "excess": found.excess} for name, found in one.probes.items()},
        "worst": [
            {
                "query": case.query.example.path.name,
                "right": sorted(case.query.right),
                "place": case.place,
                "found": [hit.example.path.name for hit in case.hits],
            }
            for case in worst_cases(one.ranking, WORST)
        ],
    }


def _groups(result: SetResult, peer: SetResult | None, by: str) -> list[dict[str, Any]]:
    """A row for each value that queries have; none if all are alike."""
    values = np.array(result.groups.get(by, ()))
    names = sorted(set(values.tolist()) - {""})
    if len(names) < 2:
        return []
    return [
        {
            "name": name,
            "queries": int((values == name).sum()),
            "metrics": estimates(result, peer, values == name),
        }
        for name in names
    ]


def _conditions(one: SetEvaluation) -> list[dict[str, Any]]:
    """`drop` is the figure without the condition less that with it."""
    rows = []
    for condition, result, peer in one.conditions:
        drops = np.stack([one.result.metrics[metric] - result.metrics[metric] for metric in METRICS])
        bounds = intervals(drops)
        row = {
            "name": condition.name,
            "strength": condition.strength,
            "metrics": estimates(result, peer),
            "drop": {
                metric: {
                    "value": float(drops[i].mean()),
                    "low": float(bounds[i, 0]),
                    "high": float(bounds[i, 1]),
                }
                for i, metric in enumerate(METRICS)
            },
        }
        if peer is not None and one.peer is not None:
            row["peer_drop"] = {metric: one.peer.mean(metric) - peer.mean(metric) for metric in METRICS}
        rows.append(row)
    return rows


def _map(drawn: SpaceMap) -> dict[str, Any]:
    return {
        "pictures": len(drawn.drawn.names),
        "placed_in_old": drawn.old is not None,
        "movements": [asdict(movement) for movement in drawn.moved],
    }


def summary(sets: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Set -> metric -> value, for the terminal."""
    return {one["name"]: {m: one["metrics"][m]["value"] for m in METRICS} for one in sets}
