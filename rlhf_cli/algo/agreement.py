"""How far raters agree, beyond chance and with error bars: percent, Cohen, Fleiss, Krippendorff, bootstrap.

Ratings are a tensor [U, R] of category numbers 0 .. K-1 for U units and R raters, -1 where a rater said nothing.
Every coefficient is a function of sums over units, so that resampled data need only resampled sums. Where a
coefficient does not exist, None stands in for it, never NaN and never a flattering 1.0.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def coincidences(ratings: Tensor, num_categories: int) -> Tensor:
    """Return the coincidence matrix of each unit, [U, K, K]: ordered pairs of different raters / (m - 1).

    m is how many raters a unit has; one with fewer than two holds no pair and is zero. Krippendorff (2011),
    "Computing Krippendorff's Alpha-Reliability", step 2.
    """
    counts = category_counts(ratings, num_categories)
    pairs = counts[:, :, None] * counts[:, None, :] - torch.diag_embed(counts)
    others = (counts.sum(-1) - 1).clamp(min=1)
    return pairs / others[:, None, None]


def category_counts(ratings: Tensor, num_categories: int) -> Tensor:
    """Count the raters of each unit in each category, [U, K] float64."""
    categories = torch.arange(num_categories)
    return (ratings[:, :, None] == categories).sum(1).double()


def pair_counts(ratings: Tensor, num_categories: int) -> Tensor:
    """Count the unordered pairs of raters of each unit by their categories, [U, K, K], symmetric in halves."""
    counts = category_counts(ratings, num_categories)
    return (counts[:, :, None] * counts[:, None, :] - torch.diag_embed(counts)) / 2


def confusion(one: Tensor, other: Tensor, num_categories: int) -> Tensor:
    """Return [U, K, K]: for each unit that both rated ([U] each), a 1 at (category of one, category of other)."""
    both = (one >= 0) & (other >= 0)
    cells = one.clamp(min=0) * num_categories + other.clamp(min=0)
    flat = torch.nn.functional.one_hot(cells, num_categories**2).double() * both[:, None]
    return flat.view(-1, num_categories, num_categories)


def percent_agreement(pairs: Tensor) -> float | None:
    """Return the share on the diagonal of [K, K]; None without pairs.

    For summed `pair_counts` that is the share of pairs of raters that agree, for a summed `confusion` the share of
    units.
    """
    total = float(pairs.sum())
    return float(pairs.diagonal().sum()) / total if total else None


def cohen_kappa(table: Tensor) -> float | None:
    """Return Cohen's kappa (1960), (p_o - p_e) / (1 - p_e), of a summed `confusion` [K, K].

    None without units, and where both raters used one and the same category only: chance alone explains it all.
    """
    total = float(table.sum())
    if not total:
        return None
    by_chance = float(table.sum(0) @ table.sum(1)) / total**2
    return _beyond_chance(float(table.diagonal().sum()) / total, by_chance)


def fleiss_parts(ratings: Tensor, num_categories: int) -> Tensor:
    """Return per unit [U, K + 2]: its category counts, its share of agreeing pairs P_i, and 1.

    Raises ValueError unless all units have one number of raters, at least two: Fleiss' kappa is for no other data.
    """
    counts = category_counts(ratings, num_categories)
    raters = counts.sum(-1)
    if len(set(raters.tolist())) != 1 or raters[0] < 2:
        raise ValueError("not the same number of raters everywhere")
    num_raters = float(raters[0])
    agreeing = (counts * (counts - 1)).sum(-1) / (num_raters * (num_raters - 1))
    return torch.cat([counts, agreeing[:, None], torch.ones(len(counts), 1, dtype=torch.float64)], dim=1)


def fleiss_kappa(parts: Tensor) -> float | None:
    """Return Fleiss' kappa (1971) from summed `fleiss_parts` [K + 2]; None where there is but one category."""
    counts, agreeing, num_units = parts[:-2], float(parts[-2]), float(parts[-1])
    if not num_units:
        return None
    shares = counts / counts.sum()
    return _beyond_chance(agreeing / num_units, float(shares @ shares))


def krippendorff_alpha(matrix: Tensor, *, ordinal: bool) -> float | None:
    """Return Krippendorff's alpha, 1 - D_o / D_e, from summed `coincidences` [K, K]; missing ratings are no matter.

    The ordinal distance of categories c < k is (n_c / 2 + n_(c+1) + ... + n_(k-1) + n_k / 2)^2 with the totals n
    of the data. None where nothing is paired, or only one category occurs.
    """
    totals = matrix.sum(1)
    num_values = float(totals.sum())
    if num_values <= 1:
        return None
    distances = _ordinal_distances(totals) if ordinal else 1.0 - torch.eye(len(totals), dtype=torch.float64)
    expected = float((totals[:, None] * totals[None, :] * distances).sum()) / (num_values - 1)
    if expected <= 0:
        return None
    return 1.0 - float((matrix * distances).sum()) / expected


def _ordinal_distances(totals: Tensor) -> Tensor:
    """Return the squared distances [K, K] by ranks: the values between two categories, their own by half."""
    middles = totals.cumsum(0) - totals / 2
    return (middles[:, None] - middles[None, :]) ** 2


def _beyond_chance(observed: float, by_chance: float) -> float | None:
    return None if math.isclose(by_chance, 1.0, abs_tol=1e-12) else (observed - by_chance) / (1 - by_chance)


def bootstrap_interval(
    statistic: Callable[[Tensor], float | None],
    parts: Tensor,
    clusters: Tensor,
    *,
    seed: int,
    num_samples: int = 1000,
) -> tuple[float, float] | None:
    """Return the 95 % percentile interval (Efron 1979) of `statistic(sum of parts)` over resampled clusters.

    parts [U, ...] are what each unit adds to the sum; clusters [U] tells which units go together, such as all those
    of one prompt. None with fewer than two clusters, or where the statistic exists in too few samples to tell.
    """
    _, members = torch.unique(clusters, return_inverse=True)
    num_clusters = int(members.max()) + 1 if len(members) else 0
    if num_clusters < 2:
        return None
    sums = torch.zeros(num_clusters, parts[0].numel(), dtype=torch.float64)
    sums.index_add_(0, members, parts.reshape(len(parts), -1).double())
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(num_samples):
        drawn = torch.randint(num_clusters, (num_clusters,), generator=generator)
        weights = drawn.bincount(minlength=num_clusters).double()
        value = statistic((weights @ sums).view(parts.shape[1:]))
        if value is not None:
            values.append(value)
    if len(values) < 0.9 * num_samples:
        return None
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[round(0.025 * last)], ordered[round(0.975 * last)]
