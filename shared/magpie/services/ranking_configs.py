"""RankingConfigService: the calling customer's rules of ranking."""

from __future__ import annotations

from collections.abc import Collection

from magpie.errors import InvalidArgument
from magpie.index.attribute_schema import AttributeSchema
from magpie.index.filter_check import check_filter
from magpie.ranking.config import validate
from magpie.rpc.context import CallContext
from magpie.store.attribute_schemas import AttributeSchemas
from magpie.store.ranking_configs import RankingConfigs
from magpie.v1 import ranking_config_pb2, ranking_config_pb2_grpc


class RankingConfigServicer(ranking_config_pb2_grpc.RankingConfigServiceServicer):
    """`spaces` are those of the bundle in use: a config can weigh no others.

    A config's filters are checked against the customer's attributes when it is put, and never again: one
    whose attribute has gone since holds for no product, and breaks no search.

    `calibrated` says whether the bundle has a calibration, without which none can cut off by probability.
    `bundle` is its id: it may bring the config that is in force before a customer's first put.
    """

    def __init__(
        self,
        configs: RankingConfigs,
        schemas: AttributeSchemas,
        spaces: Collection[str],
        *,
        calibrated: bool = False,
        bundle: str = "",
    ) -> None:
        self._configs = configs
        self._schemas = schemas
        self._spaces = spaces
        self._calibrated = calibrated
        self._bundle = bundle

    def GetRankingConfig(  # type: ignore[override]  # our context on every transport
        self, request: ranking_config_pb2.GetRankingConfigRequest, context: CallContext
    ) -> ranking_config_pb2.GetRankingConfigResponse:
        customer = context.require_customer()
        if request.version < 0:
            raise InvalidArgument("version", f"must be at least 0, got {request.version}")
        config = self._configs.get(customer, request.version, self._bundle)
        return ranking_config_pb2.GetRankingConfigResponse(config=config)

    def PutRankingConfig(  # type: ignore[override]
        self, request: ranking_config_pb2.PutRankingConfigRequest, context: CallContext
    ) -> ranking_config_pb2.PutRankingConfigResponse:
        customer = context.require_customer()
        if not request.HasField("config"):
            raise InvalidArgument("config", "is missing; to return to the default put an empty one, {}")
        config = validate(request.config, self._spaces, calibrated=self._calibrated)
        _check_filters(config, self._schemas.newest(customer))
        expected = request.expected_version if request.HasField("expected_version") else None
        return ranking_config_pb2.PutRankingConfigResponse(
            config=self._configs.put(customer, config, expected, self._bundle)
        )


def _check_filters(config: ranking_config_pb2.RankingConfig, schema: AttributeSchema) -> None:
    if config.filter:
        check_filter(config.filter, schema, "filter")
    for row, boost in enumerate(config.boosts):
        check_filter(boost.filter, schema, f"boosts[{row}].filter")
