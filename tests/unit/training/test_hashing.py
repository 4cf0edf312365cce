from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from magpie.errors import FailedPrecondition, InvalidArgument
from magpie.index.hash_model import CARD, HashModel
from magpie.vision.bundle import MANIFEST, Bundle
from training.hashing import bernoulli_autoencoder, itq, select, tight_frame
from training.hashing.bernoulli_autoencoder import Autoencoder, Settings
from training.hashing.bundle import put_in_bundle
from training.hashing.grown_collection import grown
from training.hashing.measure import Collection, measure
from training.hashing.select import bits_of, fit_hash

ROOT = Path(__file__).resolve().parents[3]
QUICK = Settings(steps=60, batch=128)


def clustered(rows: int, dimension: int, seed: int, clusters: int = 20) -> np.ndarray:
    """Unit vectors around a few centres, most of them in a few of the dimensions, off the origin."""
    rng = np.random.default_rng(seed)
    shape = np.linspace(1, 0.05, dimension)
    centres = np.random.default_rng(99).normal(size=(clusters, dimension)) * shape + 0.2
    vectors = centres[rng.integers(0, clusters, rows)] + 0.5 * rng.normal(size=(rows, dimension)) * shape
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("dimension", "bits"), [(8, 64), (64, 64), (128, 64), (24, 128)])
def test_a_tight_frame_keeps_lengths_or_is_orthonormal(dimension: int, bits: int) -> None:
    frame = tight_frame.tight_frame(dimension, bits, np.random.default_rng(1))
    assert frame.shape == (dimension, bits)
    small = frame @ frame.T if bits >= dimension else frame.T @ frame
    assert np.allclose(small, np.eye(min(dimension, bits)))


@pytest.mark.parametrize("bits", [8, 16, 48])
def test_the_alternation_is_the_papers_and_its_error_never_rises(bits: int) -> None:
    vectors = clustered(300, 16, 2).astype(np.float64)
    projected = vectors - vectors.mean(axis=0)
    projected = projected @ itq.principal_components(projected, bits)
    # As the paper writes it: square rotations, vectors padded with zeros where bits outnumber dimensions.
    padded = np.pad(projected, ((0, 0), (0, bits - projected.shape[1])))
    naive = tight_frame.tight_frame(bits, bits, np.random.default_rng(3))
    errors = []
    for rotation in itq.alternation(projected, naive[: projected.shape[1]], 12):
        codes = np.where(padded @ naive > 0, 1.0, -1.0)
        s, _, s_hat = np.linalg.svd(codes.T @ padded)
        naive = s_hat.T @ s.T
        assert np.allclose(naive[: projected.shape[1]], rotation, atol=1e-8)
        before = np.sum((codes - padded @ naive) ** 2) / len(padded)
        errors += [before, itq.quantisation_error(projected, rotation)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]


def test_itq_centres_and_takes_the_principal_components() -> None:
    vectors = clustered(500, 96, 4)
    coder = itq.fit(vectors, 64, seed=0)
    outputs = coder.outputs(vectors)
    assert np.allclose(outputs.mean(axis=0), 0, atol=1e-5)
    centred = (vectors - vectors.mean(axis=0)).astype(np.float64)
    largest = np.sort(np.linalg.eigvalsh(centred.T @ centred))[-64:]
    assert np.isclose((outputs.astype(np.float64) ** 2).sum(), largest.sum(), rtol=1e-4)


@pytest.mark.parametrize(("hidden", "thresholds"), [(0, False), (0, True), (24, True)])
def test_the_autoencoders_coder_is_its_encoder(hidden: int, thresholds: bool) -> None:
    vectors = clustered(200, 16, 5)
    settings = Settings(hidden=hidden, thresholds=thresholds)
    model = Autoencoder(tight_frame.fit(vectors, 64, 0), settings)
    coder = model.coder()
    assert (coder.card.hidden, coder.card.bits, coder.card.dimension) == (hidden, 64, 16)
    with torch.no_grad():
        logits = model.encode(torch.from_numpy(vectors)).numpy()
    assert np.allclose(coder.outputs(vectors), logits, atol=1e-5)
    bits = np.unpackbits(coder.encode(vectors), axis=1).astype(bool)
    certain = np.abs(logits) > 1e-5
    assert np.array_equal(bits[certain], (logits > 0)[certain])


def test_the_loss_is_error_and_divergence_from_fair_coins() -> None:
    vectors = torch.from_numpy(clustered(50, 16, 6))
    model = Autoencoder(tight_frame.fit(vectors.numpy(), 64, 0), Settings(thresholds=True))
    with torch.no_grad():
        model.logits.weight.mul_(1e4)  # every bit is sure: drawn or not, it is the same
        error, divergence = model.losses(vectors, torch.Generator().manual_seed(0))
        codes = torch.where(model.encode(vectors) > 0, 1.0, -1.0)
        assert torch.allclose(error, ((vectors - model.decoder(codes)) ** 2).sum(1).mean(), rtol=1e-4)
        assert divergence == pytest.approx(64 * np.log(2), rel=0.02)
        model.logits.weight.zero_()
        model.logits.bias.fill_(0.3)
        p = 1 / (1 + np.exp(-0.3))
        expected = 64 * (p * np.log(2 * p) + (1 - p) * np.log(2 * (1 - p)))
        assert model.losses(vectors, torch.Generator())[1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("hidden", [0, 32])
def test_the_same_seed_gives_the_same_coder(hidden: int) -> None:
    vectors = clustered(200, 16, 7)
    settings = Settings(steps=10, batch=64, hidden=hidden)
    torch.manual_seed(1)
    first = bernoulli_autoencoder.fit(vectors, 64, 3, settings)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = bernoulli_autoencoder.fit(vectors, 64, 3, settings)
    assert torch.equal(torch.random.get_rng_state(), state)  # it draws from nobody else's
    for one, other in zip(first.weights, second.weights, strict=True):
        assert np.array_equal(one, other)


def test_a_training_that_diverges_is_said() -> None:
    vectors = clustered(200, 16, 7)
    with pytest.raises(FailedPrecondition, match="diverged"):
        bernoulli_autoencoder.fit(vectors, 64, 0, Settings(steps=5, rate=float("inf")))


def test_learned_codes_beat_random_ones_on_clustered_vectors() -> None:
    vectors, queries = clustered(3000, 32, 8), clustered(100, 32, 9)
    collection = Collection.of("clustered", queries, vectors)
    rng = np.random.default_rng(0)
    random = tight_frame.fit(vectors, 64, 0)
    independent = type(random)("lsh", (rng.normal(size=(32, 64)).astype(np.float32),), random.biases)
    learned = bernoulli_autoencoder.fit(vectors, 64, 0, Settings(steps=300, random_share=0.0))
    recalls = {
        c.method: measure("identity", c, collection, [30])[0].rescored for c in (independent, random, learned)
    }
    assert recalls["lsh"] < recalls["tight-frame"] < recalls["bernoulli-autoencoder"]


def test_a_measured_row_is_what_a_loop_finds() -> None:
    vectors, queries = clustered(400, 16, 10), clustered(7, 16, 11)
    coder = itq.fit(vectors, 128, 0)
    shorter, row = measure("identity", coder, Collection.of("small", queries, vectors), [200, 15])
    assert (shorter.shortlist, shorter.hamming) == (15, row.hamming)
    assert shorter.rescored <= row.rescored
    codes, asked = coder.encode(vectors), coder.encode(queries)
    alone, after = [], []
    for query, code in zip(queries, asked, strict=True):
        exact = set(sorted(range(400), key=lambda i: -float(query @ vectors[i]))[:10])
        order = sorted(range(400), key=lambda i: (int(np.bitwise_count(codes[i] ^ code).sum()), i))
        alone.append(len(exact & set(order[:10])) / 10)
        best = sorted(order[:20], key=lambda i: -float(query @ vectors[i]))[:10]
        after.append(len(exact & set(best)) / 10)
    assert row.shortlist == 20  # a twentieth of so few
    assert (row.hamming, row.rescored) == (round(np.mean(alone), 4), round(np.mean(after), 4))
    assert abs(row.rescored_int8 - row.rescored) <= 0.05
    assert (row.code_bytes, row.int8_bytes, row.float_bytes) == (16, 16 + 16 + 4, 16 + 64)
    assert (row.objects, row.queries, row.bits, row.method) == (400, 7, 128, "itq")


def test_a_grown_collection_is_unit_and_clustered_around_the_real_one() -> None:
    vectors = clustered(300, 16, 12)
    larger = grown(vectors, 2000, 0)
    assert larger.shape == (2000, 16)
    assert np.array_equal(larger[:300], vectors)
    assert np.allclose(np.linalg.norm(larger, axis=1), 1, atol=1e-5)
    nearest_real = (larger[300:] @ vectors.T).max(axis=1)
    scattered = np.random.default_rng(0).normal(size=(1700, 16))
    scattered /= np.linalg.norm(scattered, axis=1, keepdims=True)
    assert nearest_real.mean() > 0.85 > (scattered @ vectors.T).max(axis=1).mean()
    assert len(np.unique(larger, axis=0)) == 2000
    assert np.array_equal(grown(vectors, 200, 0), vectors[:200])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The autoencoder with few steps."""
    fit = bernoulli_autoencoder.fit
    monkeypatch.setattr(bernoulli_autoencoder, "fit", lambda v, bits, seed: fit(v, bits, seed, QUICK))


@pytest.mark.usefixtures("quick")
def test_the_better_method_is_kept_and_the_report_says_why() -> None:
    vectors = {"identity": clustered(600, 32, 13), "similar": clustered(600, 16, 14)}
    queries = {"identity": clustered(60, 32, 15), "similar": clustered(60, 16, 16)}
    names = ["a"] * 350 + ["b"] * 250
    said: list[str] = []
    model, report = fit_hash(
        vectors,
        {"identity": 128, "similar": 64},
        queries,
        datasets=names,
        table_bits=(64,),
        grow_to=1500,
        tell=said.append,
    )
    assert model.bits == {"identity": 128, "similar": 64}
    assert len(said) == 9
    for space, chosen in report["chosen"].items():
        scores = chosen["scores"]
        assert set(scores) == {"tight-frame", "itq", "bernoulli-autoencoder"}
        assert scores[chosen["method"]] == max(scores.values())
        assert model.coders[space].method == chosen["method"]
        kept = [row for row in report["table"] if row["space"] == space and row["kept"]]
        assert {row["method"] for row in kept} == {chosen["method"]}
        assert {row["bits"] for row in kept} == {chosen["bits"]}
        assert [row["collection"] for row in kept] == [
            "held-out queries",
            "grown to 1500",
            "a, fitted without it",
            "b, fitted without it",
        ]
        assert [row["objects"] for row in kept] == [600, 1500, 263, 188]
        assert [row["shortlist"] for row in kept] == [30, 75, 13, 10]  # a twentieth
        real = [row["rescored"] for row in kept if not row["collection"].startswith("grown")]
        assert min(real) == scores[chosen["method"]]
    assert len(report["table"]) == 3 * 3 * 4
    assert json.dumps(report)


def test_a_method_that_is_bad_for_other_goods_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    class Narrow:
        """Knows the vectors that it was fitted to, and codes all others alike."""

        METHOD = "narrow"

        @staticmethod
        def fit(vectors: np.ndarray, bits: int, seed: int):
            coder = tight_frame.fit(vectors, bits, seed)
            seen = np.linalg.svd(vectors, full_matrices=False)[2][:8]
            return type(coder)("narrow", ((seen.T @ seen @ coder.weights[0]),), coder.biases)

    rng = np.random.default_rng(1)
    first, second = np.zeros((2, 400, 32), np.float32)
    first[:, :8], second[:, 16:24] = rng.normal(size=(2, 400, 8))
    both = np.concatenate([first, second])
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    monkeypatch.setattr(select, "METHODS", (Narrow, tight_frame))
    _, report = fit_hash(
        {"identity": both[50:]}, 64, {"identity": both[:50]}, datasets=["a"] * 350 + ["b"] * 400, grow_to=0
    )
    assert report["chosen"]["identity"]["method"] == "tight-frame"
    _, report = fit_hash({"identity": first[50:]}, 64, {"identity": first[:50]}, grow_to=0)
    scores = report["chosen"]["identity"]["scores"]
    assert abs(scores["narrow"] - scores["tight-frame"]) < 0.1  # where all are alike it would have done


def test_bits_are_checked_and_have_defaults() -> None:
    assert bits_of(["identity", "category"], None) == {"identity": 256, "category": 128}
    assert bits_of(["identity", "category"], {"category": 64}) == {"identity": 256, "category": 64}
    assert bits_of(["identity"], 512) == {"identity": 512}
    for bits in (100, 0, -64, 8192):
        with pytest.raises(InvalidArgument, match="bits: of identity must be a multiple of 64"):
            bits_of(["identity"], bits)
    with pytest.raises(InvalidArgument, match="no space colour"):
        bits_of(["identity"], {"colour": 64})


def test_what_cannot_be_fitted_or_measured_is_said() -> None:
    vectors, queries = clustered(100, 16, 17), clustered(10, 16, 18)
    with pytest.raises(InvalidArgument, match="all queries are training vectors"):
        fit_hash({"identity": vectors}, 64, {"identity": vectors[:9]})
    with pytest.raises(InvalidArgument, match="too few"):
        fit_hash({"identity": vectors[:15]}, 64, {"identity": queries})
    with pytest.raises(InvalidArgument, match="queries: are of spaces"):
        fit_hash({"identity": vectors}, 64, {"similar": queries})
    with pytest.raises(InvalidArgument, match="99 names for 100 vectors"):
        fit_hash({"identity": vectors}, 64, {"identity": queries}, datasets=["a"] * 99)
    with pytest.raises(InvalidArgument, match="not finite"):
        fit_hash({"identity": vectors * np.nan}, 64, {"identity": queries})


def test_a_bundle_names_its_hash_model(tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT / "bundles" / "default", tmp_path / "bundle")
    sha256 = Bundle.load(folder).embedder_card.sha256
    spaces = Bundle.load(folder).embedder_card.spaces
    model = HashModel({space: tight_frame.fit(np.zeros((1, d)), 64, 0) for space, d in spaces.items()})
    row = {"space": "identity", "best": False, "at_bits_kept": False}
    put_in_bundle(folder, model, ["photos"], {"table": [row, {**row, "at_bits_kept": True}]})
    bundle = Bundle.load(folder)
    assert bundle.hash == CARD
    assert HashModel.load(folder, bundle.hash, sha256).bits == model.bits
    assert json.loads((folder / CARD).read_text())["measured"] == [{**row, "at_bits_kept": True}]
    assert not list(folder.glob("*.part"))
    before = (folder / MANIFEST).read_bytes()
    wrong = HashModel({"identity": tight_frame.fit(np.zeros((1, 7)), 64, 0)})
    with pytest.raises(FailedPrecondition, match="identity of 7 dimensions"):
        put_in_bundle(folder, wrong, [], {"table": []})
    assert (folder / MANIFEST).read_bytes() == before
