"""Feature distances against a direct Mahalanobis distance and the chi distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import mahalanobis

from wetread.errors import StatisticRefused
from wetread.models.outlier import FeatureStatistics, fit_statistics


def test_with_all_directions_but_one_it_is_the_mahalanobis_distance() -> None:
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5)) + 3).astype(np.float32)
    statistics = fit_statistics(data, components=4)  # the last direction is the residual
    inverse = np.linalg.inv(np.cov(data, rowvar=False))
    queries = (rng.normal(size=(10, 5)) * 4).astype(np.float32)
    direct = [mahalanobis(query, data.mean(0), inverse) / np.sqrt(5) for query in queries]
    np.testing.assert_allclose(statistics.distances(queries), direct, rtol=1e-3)


def test_on_gaussian_data_squared_distances_follow_chi_squared() -> None:
    rng = np.random.default_rng(1)
    width = 20
    scales = np.linspace(0.5, 3, width)
    data = (rng.normal(size=(6000, width)) * scales).astype(np.float32)
    statistics = fit_statistics(data[:4000], components=width - 1)
    squared = width * statistics.distances(data[4000:]) ** 2
    assert stats.kstest(squared, stats.chi2(width).cdf).pvalue > 0.01
    assert statistics.distances(data[4000:]).mean() == pytest.approx(1, abs=0.05)


def test_outliers_inside_and_outside_the_directions_lie_far() -> None:
    rng = np.random.default_rng(2)
    data = rng.normal(size=(500, 30)).astype(np.float32)
    data[:, 0] *= 20
    statistics = fit_statistics(data, components=3)
    along, across = np.zeros((2, 1, 30), dtype=np.float32)
    along[0, 0], across[0, 29] = 200, 20  # each ten and twenty deviations away
    assert statistics.distances(data).max() < 1.6
    assert statistics.distances(along)[0] > 1.7
    assert statistics.distances(across)[0] > 3


def test_statistics_survive_their_tensors() -> None:
    rng = np.random.default_rng(3)
    data = rng.normal(size=(100, 8)).astype(np.float32)
    statistics = fit_statistics(data)
    again = FeatureStatistics.from_tensors(statistics.tensors())
    np.testing.assert_allclose(again.distances(data), statistics.distances(data), rtol=1e-6)
    assert {value.dtype for value in statistics.tensors().values()} == {np.dtype(np.float32)}


def test_more_dimensions_than_images_keep_a_quarter_of_them_as_directions() -> None:
    data = np.random.default_rng(4).normal(size=(40, 200)).astype(np.float32)
    statistics = fit_statistics(data)
    assert statistics.directions.shape == (10, 200)
    assert np.isfinite(statistics.distances(data)).all()


def test_features_that_never_vary_give_finite_distances() -> None:
    data = np.ones((40, 6), dtype=np.float32)
    statistics = fit_statistics(data)
    assert np.isfinite(statistics.distances(data)).all()
    assert statistics.distances(data + 1)[0] > 100


def test_few_images_are_refused() -> None:
    with pytest.raises(StatisticRefused, match="expected at least 30 training images for the gate, got 29"):
        fit_statistics(np.zeros((29, 4), dtype=np.float32))
