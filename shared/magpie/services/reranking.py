"""RerankingService: pure ranking, the request holds all that it needs."""

from __future__ import annotations

from collections.abc import Collection

from magpie.errors import InvalidArgument
from magpie.ranking.calibration import Calibration
from magpie.ranking.config import validate
from magpie.ranking.hubness import Hubness
from magpie.ranking.rank import rank_page
from magpie.rpc.context import CallContext
from magpie.v1 import reranking_pb2, reranking_pb2_grpc


class RerankingServicer(reranking_pb2_grpc.RerankingServiceServicer):
    """Ranks for whoever asks. `spaces` are those of the bundle, which the config's weights must name.

    Without a calibration hits have no probability, and a config that cuts off by it is refused.
    """

    def __init__(
        self,
        spaces: Collection[str],
        calibration: Calibration | None = None,
        hubness: Hubness | None = None,
    ) -> None:
        self._spaces = spaces
        self._calibration = calibration
        self._hubness = hubness

    def Rerank(  # type: ignore[override]  # our context on every transport
        self, request: reranking_pb2.RerankRequest, context: CallContext
    ) -> reranking_pb2.RerankResponse:
        context.require_customer()
        if not 1 <= request.limit <= 100:
            raise InvalidArgument("limit", f"must lie in [1, 100], got {request.limit}")
        config = validate(request.config, self._spaces, calibrated=self._calibration is not None)
        products = {product.id: product for product in request.products}
        if request.shown and len(request.shown) != len(request.results):
            raise InvalidArgument(
                "shown", f"needs one for each of the {len(request.results)} results, got {len(request.shown)}"
            )
        for row, result in enumerate(request.results):
            for candidate in result.candidates:
                if candidate.product_id not in products:
                    raise InvalidArgument(
                        "products",
                        f"lacks {candidate.product_id!r}, which results[{row}] names as a candidate",
                    )
        shown = [set(one.product_ids) for one in request.shown] or [set()] * len(request.results)
        return reranking_pb2.RerankResponse(
            results=[
                rank_page(
                    config,
                    result.candidates,
                    products,
                    request.limit,
                    request.explain,
                    shown=of_result,
                    calibration=self._calibration,
                    hubness=self._hubness,
                    group_by=request.group_by,
                    facets=request.facets,
                )
                for result, of_result in zip(request.results, shown, strict=True)
            ]
        )
