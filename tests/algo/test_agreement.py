"""Agreement coefficients against published worked examples, and what they must not say."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cli.algo.agreement import (
    bootstrap_interval,
    cohen_kappa,
    coincidences,
    confusion,
    fleiss_kappa,
    fleiss_parts,
    krippendorff_alpha,
    pair_counts,
    percent_agreement,
)

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C: 4 observers, 12 units, values 1-5.
OBSERVERS = [
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
]
# Fleiss (1971)'s formula on the table of 14 raters, 10 subjects and 5 categories that textbooks give: 0.210.
FLEISS = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def krippendorff_data() -> torch.Tensor:
    columns = [[-1 if value == "." else int(value) - 1 for value in row.split()] for row in OBSERVERS]
    return torch.tensor(columns).T


def test_krippendorff_as_published():
    matrix = coincidences(krippendorff_data(), 5).sum(0)
    assert matrix.sum() == 40  # values that can be paired
    assert krippendorff_alpha(matrix, ordinal=False) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(matrix, ordinal=True) == pytest.approx(0.815, abs=5e-4)


def test_fleiss_as_published():
    ratings = torch.tensor([[k for k, n in enumerate(row) for _ in range(n)] for row in FLEISS])
    assert fleiss_kappa(fleiss_parts(ratings, 5).sum(0)) == pytest.approx(0.210, abs=5e-4)


def test_fleiss_is_for_equal_numbers_of_raters_only():
    with pytest.raises(ValueError, match="same number"):
        fleiss_parts(torch.tensor([[0, 1, 1], [0, 1, -1]]), 2)


def test_cohen_as_published():
    """50 applications, two readers: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no; p_o 0.7, p_e 0.5."""
    one = torch.tensor([0] * 25 + [1] * 25)
    other = torch.tensor([0] * 20 + [1] * 5 + [0] * 10 + [1] * 15)
    table = confusion(one, other, 2).sum(0)
    assert table.tolist() == [[20, 5], [10, 15]]
    assert cohen_kappa(table) == pytest.approx(0.4)
    assert percent_agreement(table) == pytest.approx(0.7)


def test_what_does_not_exist_is_none():
    same = torch.zeros(5, 3, dtype=torch.long)
    alone = torch.tensor([[0, -1], [-1, 1]])
    assert krippendorff_alpha(coincidences(same, 2).sum(0), ordinal=False) is None
    assert fleiss_kappa(fleiss_parts(same, 2).sum(0)) is None
    assert cohen_kappa(confusion(same[:, 0], same[:, 1], 2).sum(0)) is None
    assert krippendorff_alpha(coincidences(alone, 2).sum(0), ordinal=True) is None
    assert percent_agreement(pair_counts(alone, 2).sum(0)) is None


@given(st.lists(st.lists(st.integers(-1, 3), min_size=3, max_size=3), min_size=1, max_size=12))
def test_the_order_of_raters_does_not_matter_and_one_is_the_most(rows: list[list[int]]):
    ratings = torch.tensor(rows)
    for ordinal in (False, True):
        alphas = [
            krippendorff_alpha(coincidences(r, 4).sum(0), ordinal=ordinal) for r in (ratings, ratings.flip(1))
        ]
        assert alphas[0] == pytest.approx(alphas[1])
        assert alphas[0] is None or alphas[0] <= 1 + 1e-12


def test_the_interval_holds_the_value_and_knows_which_units_go_together():
    generator = torch.Generator().manual_seed(0)
    agree = (torch.rand(200, generator=generator) < 0.7).double()
    parts = torch.stack(
        [agree, 1 - agree], dim=1
    ).diag_embed()  # the share on the diagonal: 1 or 0 of each unit
    parts[:, 1, 1] = 0
    parts[:, 0, 1] = 1 - agree
    apart = bootstrap_interval(percent_agreement, parts, torch.arange(200), seed=1)
    together = bootstrap_interval(percent_agreement, parts, torch.arange(200) // 20, seed=1)
    assert apart is not None
    assert together is not None
    share = float(agree.mean())
    assert apart[0] < share < apart[1]
    # The normal interval of 200 coins of 0.7 is 0.127 wide.
    assert apart[1] - apart[0] == pytest.approx(0.127, rel=0.2)
    assert bootstrap_interval(percent_agreement, parts, torch.zeros(200, dtype=torch.long), seed=1) is None
