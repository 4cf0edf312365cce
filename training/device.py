"""Where a training runs: CUDA with mixed precision where there is one, else the CPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from magpie.errors import InvalidArgument


@dataclass(frozen=True)
class Device:
    """A device and the precision of the network's forward pass; losses are always float32."""

    name: str  # `cuda` or `cpu`
    precision: torch.dtype

    @classmethod
    def choose(cls, precision: str = "auto") -> Device:
        """`precision` is auto, fp32, bf16 or fp16. Raises InvalidArgument for fp16 on a CPU."""
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if precision == "fp16" and name == "cpu":
            raise InvalidArgument("precision", "fp16 needs a GPU: use fp32, bf16 or auto")
        if precision == "auto":
            precision = "fp32" if name == "cpu" else "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        return cls(name, dtypes[precision])

    def autocast(self) -> AbstractContextManager[object]:
        """For the forward pass."""
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(self.name, self.precision)

    def scaler(self) -> torch.amp.GradScaler:
        """Keeps small gradients alive in fp16; does nothing otherwise."""
        return torch.amp.GradScaler(self.name, enabled=self.precision == torch.float16)

    def __str__(self) -> str:
        words = {torch.float32: "float32", torch.bfloat16: "bfloat16 mixed", torch.float16: "float16 mixed"}
        if self.name == "cuda":
            return f"{torch.cuda.get_device_name()}, {words[self.precision]}"
        return f"CPU ({torch.get_num_threads()} threads), {words[self.precision]}"
