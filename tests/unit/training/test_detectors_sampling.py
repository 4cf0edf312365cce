from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.detection.sampling import balanced, hard_negatives

judged = st.lists(st.sampled_from([1, 0, 0, 0, -1]), min_size=1, max_size=40)


@given(judged, st.integers(0, 9), st.sampled_from([0.0, 1.0, 3.0]), st.integers(0, 12))
def test_hard_negatives_are_those_that_sorting_picture_by_picture_finds(target, seed, ratio, least):
    rows = torch.tensor([target, target[::-1]])
    loss = torch.rand(rows.shape, generator=torch.Generator().manual_seed(seed))
    found = hard_negatives(loss, rows, ratio, least)
    for picture in range(2):
        negatives = [place for place, kind in enumerate(rows[picture].tolist()) if kind == 0]
        negatives.sort(key=lambda place: -loss[picture, place].item())
        wanted = max(least, int(ratio * rows[picture].tolist().count(1)))
        assert sorted(negatives[:wanted]) == found[picture].nonzero()[:, 0].tolist()


def test_mining_takes_no_gradient():
    loss = torch.rand(1, 6, requires_grad=True)
    assert not hard_negatives(loss, torch.zeros(1, 6, dtype=torch.long)).requires_grad


@given(judged, st.integers(0, 9), st.integers(1, 30), st.sampled_from([0.25, 0.5, 1.0]))
def test_a_balanced_sample_counts_as_told(target, seed, count, share):
    rows = torch.tensor(target)
    chosen = balanced(rows, count, share, torch.Generator().manual_seed(seed))
    positives = min(target.count(1), round(count * share))
    assert int(chosen[rows == 1].sum()) == positives
    assert int(chosen[rows == 0].sum()) == min(target.count(0), count - positives)
    assert not chosen[rows == -1].any()
    assert torch.equal(chosen, balanced(rows, count, share, torch.Generator().manual_seed(seed)))


def test_a_balanced_sample_is_drawn_evenly():
    rows, generator = torch.zeros(10, dtype=torch.long), torch.Generator().manual_seed(0)
    drawn = torch.stack([balanced(rows, 5, 0.5, generator) for _ in range(2000)]).float().mean(dim=0)
    assert drawn.tolist() == pytest.approx([0.5] * 10, abs=0.05)
