"""A learned coder: the encoder of a variational autoencoder whose latents are bits, trained without labels.

The encoder gives each bit the probability of being 1; bits are drawn from it; a linear decoder makes the
vector again from the bits (as -1 and 1). Minimised is the reconstruction error plus `kl_weight` times the
divergence of the bits from fair coins, which is the evidence lower bound up to the weight (Dai et al.,
Stochastic Generative Hashing, ICML 2017; Shen et al., NASH, ACL 2018). The gradient passes the draw straight
through (Bengio et al. 2013). Serving keeps the encoder and takes the likelier value of each bit.

The encoder begins as ITQ where there are fewer bits than dimensions and as a tight frame elsewhere, the
better of the two in each case. Two things keep it good for goods unlike those that it is fitted to: it has no
thresholds, since the mean of other goods' vectors is another one (what costs ITQ most there), and a part of
each batch are random directions, so that the frame stays one where the training vectors do not reach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from magpie.errors import FailedPrecondition
from magpie.index.hash_model import Coder
from training.hashing import itq, tight_frame

METHOD = "bernoulli-autoencoder"


@dataclass(frozen=True)
class Settings:
    """How it is trained."""

    steps: int = 800
    batch: int = 512
    rate: float = 2e-3  # Adam's, falling to 0 along a cosine
    kl_weight: float = 0.3  # of the mean over bits, beside the error as a share of the squared length
    random_share: float = 0.25  # of a batch that are random directions
    thresholds: bool = False  # also learn biases
    hidden: int = 0  # units of a hidden layer (tanh); 0: the encoder is linear
    certainty: float = 2.0  # standard deviation of the logits at the start


class Autoencoder(nn.Module):
    """Vectors (B, d) to logits of bits (B, bits), bits to vectors."""

    def __init__(self, start: Coder, settings: Settings) -> None:
        super().__init__()
        dimension, bits = start.weights[0].shape
        weight, bias = torch.from_numpy(start.weights[0]), settings.thresholds
        self.hidden = nn.Linear(dimension, settings.hidden, bias) if settings.hidden else None
        self.logits = nn.Linear(settings.hidden or dimension, bits, bias)
        self.decoder = nn.Linear(bits, dimension, bias)
        with torch.no_grad():
            if not settings.hidden:
                self.logits.weight.copy_(weight.T)
            self.decoder.weight.copy_(weight)
            for layer in (self.logits, self.decoder) if bias else ():
                layer.bias.zero_()

    def encode(self, vectors: Tensor) -> Tensor:
        """Logits (B, bits)."""
        return self.logits(vectors if self.hidden is None else torch.tanh(self.hidden(vectors)))  # type: ignore[no-any-return]

    def losses(self, vectors: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Squared error and divergence (nats), each the mean over the batch."""
        logits = self.encode(vectors)
        probability = torch.sigmoid(logits)
        drawn = (torch.rand(probability.shape, generator=generator) < probability).float()
        bits = drawn + probability - probability.detach()  # straight through
        error = (vectors - self.decoder(2 * bits - 1)).square().sum(dim=1).mean()
        entropy = -(probability * F.logsigmoid(logits) + (1 - probability) * F.logsigmoid(-logits))
        return error, (math.log(2) - entropy).sum(dim=1).mean()

    def coder(self) -> Coder:
        """The encoder, as serving has it."""
        layers = [self.logits] if self.hidden is None else [self.hidden, self.logits]
        return Coder(
            METHOD,
            tuple(np.ascontiguousarray(layer.weight.detach().numpy().T) for layer in layers),
            tuple(_bias(layer) for layer in layers),
        )


def fit(vectors: NDArray[np.float32], bits: int, seed: int, settings: Settings | None = None) -> Coder:
    """A coder for vectors (N, d). The same seed gives the same coder, on the same machine.

    Raises FailedPrecondition if the training diverges.
    """
    settings = settings or Settings()
    generator = torch.Generator().manual_seed(seed)
    if bits < vectors.shape[1]:
        start = itq.fit(vectors, bits, seed, centre=settings.thresholds)
    else:
        start = tight_frame.fit(vectors, bits, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # nn.Linear draws from the global one
        model = Autoencoder(start, settings)
    rows = torch.from_numpy(np.ascontiguousarray(vectors))
    _scale(model, rows, settings)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    size = rows.square().sum(dim=1).mean().clamp(min=1e-12)  # 1 for unit vectors
    for _ in range(settings.steps):
        error, divergence = model.losses(_batch(rows, settings, generator), generator)
        loss = error / size + settings.kl_weight * divergence / bits
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    if not math.isfinite(float(loss.detach())):
        raise FailedPrecondition(f"the {METHOD} of {bits} bits diverged: are the vectors finite?")
    return model.coder()


def _batch(rows: Tensor, settings: Settings, generator: torch.Generator) -> Tensor:
    random = round(settings.random_share * settings.batch)
    chosen = rows[torch.randint(len(rows), (settings.batch - random,), generator=generator)]
    directions = torch.randn(random, rows.shape[1], generator=generator)
    return torch.cat([chosen, F.normalize(directions, dim=1)])


@torch.no_grad()
def _scale(model: Autoencoder, rows: Tensor, settings: Settings) -> None:
    """Logits of the certainty wanted, and the best multiple of the decoder for their signs."""
    scale = settings.certainty / model.encode(rows).std().clamp(min=1e-12)
    model.logits.weight.mul_(scale)
    remade = model.decoder(model.encode(rows).sign())
    model.decoder.weight.mul_((rows * remade).sum() / remade.square().sum().clamp(min=1e-12))


def _bias(layer: nn.Linear) -> NDArray[np.float32]:
    if layer.bias is None:
        return np.zeros(layer.out_features, np.float32)
    return layer.bias.detach().numpy().copy()
