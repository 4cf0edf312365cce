"""AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), a rate for each layer, an average of the weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn, optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


@dataclass(frozen=True)
class Optimizer:
    """Rates at the top of the schedule."""

    lr: float = 2e-4  # of the backbone's last stage
    layer_decay: float = 1.0  # each stage below learns at so much of the rate of the one above
    head_factor: float = 2.5  # the heads' rate over `lr`
    proxy_factor: float = 10.0  # that of the losses' class directions
    weight_decay: float = 1e-3
    clip_norm: float = 5.0
    ema: float = 0.998  # decay a step of the averaged weights, which are measured and exported; 0: none

    def build(
        self, stages: Iterable[nn.Module], heads: Iterable[nn.Parameter], proxies: Iterable[nn.Parameter]
    ) -> optim.AdamW:
        """`stages` of the backbone from the lowest to the highest; frozen ones have no parameter to train."""
        trained = [[p for p in stage.parameters() if p.requires_grad] for stage in stages]
        groups = [
            {"params": parameters, "lr": self.lr * self.layer_decay**depth}
            for depth, parameters in enumerate(reversed(trained))
            if parameters
        ]
        groups.append({"params": list(heads), "lr": self.lr * self.head_factor})
        groups.append({"params": list(proxies), "lr": self.lr * self.proxy_factor})
        return optim.AdamW([g for g in groups if g["params"]], weight_decay=self.weight_decay)

    def average(self, model: nn.Module) -> AveragedModel | None:
        """An exponential moving average of `model`, or None.

        With that of batch norm's statistics: those of one moment do not fit weights averaged over many.
        """
        if not self.ema:
            return None
        average = get_ema_multi_avg_fn(self.ema)  # type: ignore[no-untyped-call]
        return AveragedModel(model, multi_avg_fn=average, use_buffers=True)
