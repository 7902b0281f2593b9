"""Pair accuracy, calibration error and the Wilson interval against values worked by hand."""

import math

import pytest
import torch

from rlhf_cli.algo.metrics import (
    calibration_bins,
    correlation,
    expected_calibration_error,
    histogram,
    pair_accuracy,
    wilson_interval,
)


def margin_of(probability):
    return math.log(probability / (1 - probability))


def test_pair_accuracy_counts_a_tie_half():
    assert pair_accuracy(torch.tensor([2.0, 0.1, -1.0, 0.0])) == 2.5 / 4


def test_swapping_every_pair_turns_accuracy_around():
    torch.manual_seed(0)
    margins = torch.randint(-2, 3, (50,)).float()
    assert pair_accuracy(-margins) == pytest.approx(1 - pair_accuracy(margins))


def test_calibration_error_of_two_bins():
    # Four pairs at confidence 0.72, three right: |0.75 - 0.72| = 0.03. One at 0.97, wrong: 0.97.
    # (4 * 0.03 + 1 * 0.97) / 5 = 0.218
    sure, very_sure = margin_of(0.72), margin_of(0.97)
    margins = torch.tensor([sure, sure, -sure, sure, -very_sure])
    assert expected_calibration_error(margins) == pytest.approx(0.218, abs=1e-6)


def test_gaps_cancel_within_a_bin_and_add_up_across_bins():
    # 0.71 wrong and 0.74 right share a bin: |1 - 1.45| / 2. 0.71 and 0.76 do not: (0.71 + 0.24) / 2.
    together = torch.tensor([-margin_of(0.71), margin_of(0.74)])
    apart = torch.tensor([-margin_of(0.71), margin_of(0.76)])
    assert expected_calibration_error(together) == pytest.approx(0.225, abs=1e-6)
    assert expected_calibration_error(apart) == pytest.approx(0.475, abs=1e-6)


def test_calibration_error_at_the_ends():
    assert expected_calibration_error(torch.tensor([0.0, 0.0])) == 0.0
    assert expected_calibration_error(torch.tensor([1e4])) == 0.0
    assert expected_calibration_error(torch.tensor([-1e4])) == 1.0


def test_no_pairs_have_no_rate():
    assert math.isnan(pair_accuracy(torch.tensor([])))
    assert math.isnan(expected_calibration_error(torch.tensor([])))


def test_wilson_interval_of_eight_in_ten():
    # z^2 = 3.8415: (0.8 + 0.19207 -+ 1.95996 sqrt(0.016 + 0.0096036)) / 1.38415
    #             = (0.99207 -+ 0.31362) / 1.38415
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_wilson_interval_at_the_ends():
    # Nothing in ten: 0 to z^2 / (10 + z^2) = 3.8415 / 13.8415
    low, high = wilson_interval(0, 10)
    assert low == pytest.approx(0.0, abs=1e-12)
    assert high == pytest.approx(0.27753, abs=1e-5)
    assert wilson_interval(10, 10) == pytest.approx((1 - high, 1.0))
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("successes", [0, 0.5, 3, 10, 19.5, 20])
def test_wilson_interval_holds_the_rate_and_mirrors(successes):
    low, high = wilson_interval(successes, 20)
    assert 0.0 <= low <= successes / 20 <= high <= 1.0
    assert wilson_interval(20 - successes, 20) == pytest.approx((1 - high, 1 - low))


def test_calibration_bins_hold_what_the_error_is_made_of():
    sure, very_sure = margin_of(0.72), margin_of(0.97)
    margins = torch.tensor([sure, sure, -sure, sure, -very_sure])
    low, high = calibration_bins(margins)
    assert (low["count"], low["accuracy"], high["count"], high["accuracy"]) == (4, 0.75, 1, 0.0)
    assert (low["confidence"], high["confidence"]) == pytest.approx((0.72, 0.97), abs=1e-6)
    gaps = [it["count"] / 5 * abs(it["accuracy"] - it["confidence"]) for it in (low, high)]
    assert sum(gaps) == pytest.approx(expected_calibration_error(margins))


def test_histograms_share_their_bins_and_count_every_value():
    found = histogram({"a": torch.tensor([0.0, 1.0, 1.5, 4.0]), "b": torch.tensor([2.0])}, num_bins=4)
    assert found == {"edges": [0.0, 1.0, 2.0, 3.0, 4.0], "a": [1.0, 2.0, 0.0, 1.0], "b": [0.0, 0.0, 1.0, 0.0]}
    assert sum(histogram({"same": torch.ones(3)})["same"]) == 3


def test_correlation_of_lines_noise_and_constants():
    x = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert correlation(x, 5 - 2 * x) == pytest.approx(-1.0)
    # x - 3: -2 -1 0 3; y - 1.5: -.5 .5 -.5 .5 -> products sum to 2, squares 14 and 1
    assert correlation(x, torch.tensor([1.0, 2.0, 1.0, 2.0])) == pytest.approx(2 / 14**0.5)
    assert correlation(x, torch.ones(4)) == 0.0
    assert correlation(x[:1], x[:1]) == 0.0
