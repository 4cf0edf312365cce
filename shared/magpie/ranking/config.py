"""One customer's ranking config: its default, its validation, its checksum."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping

from google.protobuf.json_format import MessageToDict

from magpie.errors import FailedPrecondition, InvalidArgument
from magpie.index.filter import parse
from magpie.v1.ranking_config_pb2 import Fusion, RankingConfig

MAX_BOOSTS = 50
RRF_K = 60.0  # Cormack, Clarke, Buettcher 2009

# The spaces that the default bundle was measured with; a bundle without one of them needs its own weights.
DEFAULT_WEIGHTS = {"identity": 0.6, "category": 0.2, "similar": 0.2}


def default_config() -> RankingConfig:
    """The config of a customer who never wrote one: fused similarity and no controls. Version 0."""
    return RankingConfig(fusion=Fusion(method=Fusion.METHOD_WEIGHTED, weights=DEFAULT_WEIGHTS))


def checksum(config: RankingConfig) -> str:
    """SHA-256 of the rules, as canonical JSON without `version` and `checksum`."""
    rules = MessageToDict(config, preserving_proto_field_name=True)
    rules.pop("version", None)
    rules.pop("checksum", None)
    return hashlib.sha256(json.dumps(rules, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def validate(config: RankingConfig, spaces: Collection[str], *, calibrated: bool = False) -> RankingConfig:
    """A copy with its defaults filled in. `spaces` and `calibrated` say what the bundle in use has.

    Raises InvalidArgument naming the field, FilterSyntax for a filter that does not parse, FailedPrecondition
    for a cut-off by probability where the bundle has no calibration.
    """
    checked = RankingConfig()
    checked.CopyFrom(config)
    _check_fusion(checked.fusion, spaces)
    if checked.filter:
        parse(checked.filter)
    if len(checked.boosts) > MAX_BOOSTS:
        raise InvalidArgument("boosts", f"at most {MAX_BOOSTS}, got {len(checked.boosts)}")
    for row, boost in enumerate(checked.boosts):
        if not boost.filter:
            raise InvalidArgument(f"boosts[{row}].filter", "must not be empty: say which products it is for")
        parse(boost.filter)
        _check_range(f"boosts[{row}].weight", boost.weight, -1.0, 1.0)
    _check_range("near_duplicate_similarity", checked.near_duplicate_similarity, 0.0, 1.0)
    if checked.HasField("min_score"):
        _check_range("min_score", checked.min_score, -2.0, 2.0)
    if checked.HasField("min_probability"):
        _check_range("min_probability", checked.min_probability, 0.0, 1.0)
        if not calibrated:
            raise FailedPrecondition(
                "min_probability: the bundle in use has no calibration, so no hit has a probability; "
                "leave it out, or cut off by min_score"
            )
    return checked


def check_weights(weights: Mapping[str, float], spaces: Collection[str], field: str) -> None:
    """Raises InvalidArgument, naming `field`, unless all are of these spaces, at least 0, and one more."""
    for space, weight in weights.items():
        name = f"{field}['{space}']"
        if space not in spaces:
            raise InvalidArgument(name, f"no such space; the bundle has {', '.join(sorted(spaces))}")
        if not (math.isfinite(weight) and weight >= 0):
            raise InvalidArgument(name, f"must be finite and at least 0, got {weight}")
    if not any(weights.values()):
        raise InvalidArgument(field, "at least one must be greater than 0")


def _check_fusion(fusion: Fusion, spaces: Collection[str]) -> None:
    if fusion.method not in Fusion.Method.values():
        raise InvalidArgument("fusion.method", f"unknown method {fusion.method}")
    if fusion.method == Fusion.METHOD_UNSPECIFIED:
        fusion.method = Fusion.METHOD_WEIGHTED
    if not fusion.weights:
        known = {space: weight for space, weight in DEFAULT_WEIGHTS.items() if space in spaces}
        fusion.weights.update(known or dict.fromkeys(spaces, 1.0))
    check_weights(fusion.weights, spaces, "fusion.weights")
    if fusion.method == Fusion.METHOD_RRF and fusion.rrf_k == 0:
        fusion.rrf_k = RRF_K
    if fusion.rrf_k and not (math.isfinite(fusion.rrf_k) and fusion.rrf_k >= 1):
        raise InvalidArgument("fusion.rrf_k", f"must be at least 1, got {fusion.rrf_k}")


def _check_range(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also refuses NaN
        raise InvalidArgument(field, f"must lie in [{low:g}, {high:g}], got {value}")
