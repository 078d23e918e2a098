"""Imputation against a direct solution of its equations; ROAD against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from judges import slow_order, slow_round
from scorers import convolutional

import jaxviz as jv
from jaxviz.perturbation.impute import solve


def slow_solve(image, removed):
    """Write down one equation per removed pixel, and solve them together."""
    where = [tuple(p) for p in np.argwhere(removed)]
    number = {p: i for i, p in enumerate(where)}
    matrix = np.zeros((len(where), len(where)))
    right = np.zeros((len(where), image.shape[-1]))
    for i, (r, c) in enumerate(where):
        for dr, dc in np.ndindex(3, 3):
            at = (r + dr - 1, c + dc - 1)
            weight = {2: 1 / 12, 1: 1 / 6}.get(abs(dr - 1) + abs(dc - 1), 0)
            if weight == 0 or not (0 <= at[0] < image.shape[0] and 0 <= at[1] < image.shape[1]):
                continue
            matrix[i, i] += weight
            if at in number:
                matrix[i, number[at]] -= weight
            else:
                right[i] += weight * image[at]
    filled = image.astype(np.float64).copy()
    filled[removed] = np.linalg.solve(matrix, right)
    return filled


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_conjugate_gradients_solve_the_equations(rng, share):
    image = rng.random((9, 12, 3)).astype(np.float32)
    removed = rng.random((9, 12)) < share
    found = solve(jnp.asarray(image), jnp.asarray(removed)[..., None], 100)
    np.testing.assert_allclose(found, slow_solve(image, removed), atol=2e-6)


@pytest.mark.slow
def test_a_hole_is_filled_from_its_border():
    image = np.broadcast_to(np.arange(10.0, dtype=np.float32)[None, :, None], (10, 10, 1))
    removed = np.zeros((10, 10), bool)
    removed[2:8, 2:8] = True  # a ramp is its own mean of neighbours
    found = solve(jnp.asarray(image), jnp.asarray(removed)[..., None], 100)
    np.testing.assert_allclose(found, image, atol=1e-5)


@pytest.mark.slow
def test_nothing_removed_and_all_removed(rng):
    image = jnp.asarray(rng.random((5, 6, 2)).astype(np.float32))
    hole = jnp.zeros((5, 6, 1), bool)
    np.testing.assert_array_equal(solve(image, hole, 10), image)
    mean = jnp.broadcast_to(image.mean((0, 1), keepdims=True), image.shape)
    np.testing.assert_allclose(solve(image, ~hole, 10), mean, rtol=1e-6)


@pytest.mark.slow
def test_many_steps_are_no_worse_than_few(rng):
    """Once solved, nothing divides 0 by 0."""
    image = jnp.asarray(rng.random((6, 6, 1)).astype(np.float32))
    hole = jnp.asarray(rng.random((6, 6, 1)) < 0.5)
    np.testing.assert_allclose(solve(image, hole, 2000), solve(image, hole, 60), atol=1e-6)


@pytest.mark.slow
def test_road_equals_the_loop(rng):
    f = convolutional(channels=2, size=(7, 5))
    images = rng.random((2, 7, 5, 2)).astype(np.float32)
    maps = rng.normal(size=(2, 7, 5))
    key = jax.random.key(3)
    found = jv.metrics.road(f, images, maps, target=1, noise=0.2, key=key)
    noise = 0.2 * np.asarray(jax.random.normal(key, (7, 5, 2), jnp.float32))
    labels = np.arange(35).reshape(7, 5)
    for n in range(2):
        both = []
        for most_first in (False, True):
            order = slow_order(maps[n], labels, most_first)
            scores = []
            for k in range(1, 10):
                removed = np.isin(labels, order[: slow_round(k * 35 / 10)])
                filled = slow_solve(images[n], removed) + noise
                image = np.where(removed[..., None], filled, images[n]).astype(np.float32)
                scores.append(float(f(jnp.asarray(image)[None])[0, 1]))
            both.append(np.asarray(scores))
        np.testing.assert_allclose(found.least_first[n], both[0], atol=1e-5)
        np.testing.assert_allclose(found.most_first[n], both[1], atol=1e-5)
        assert found.value[n] == pytest.approx(np.mean(both[0] - both[1]) / 2, abs=1e-5)
    assert repr(found).startswith("Road(2 images, value ")


def test_a_lone_pixel_stays():
    image = jnp.full((1, 1, 2), 0.25)
    np.testing.assert_array_equal(solve(image, jnp.ones((1, 1, 1), bool), 10), image)


@pytest.mark.slow
def test_it_is_a_fill_of_the_other_metrics(rng):
    image, heatmap = rng.random((6, 6, 1)).astype(np.float32), rng.normal(size=(6, 6))
    fill = jv.metrics.neighbours(noise=0.0)
    gain = jv.metrics.srg(lambda x: x.mean((1, 2)), image, heatmap, fill=fill, steps=4)
    assert np.isfinite(gain.value)
    np.testing.assert_allclose(gain.most_first.scores[-1], image.mean(), rtol=1e-5)
    assert dict(gain.most_first.config)["fill"] == "neighbours"


@pytest.mark.slow
def test_a_map_that_finds_what_counts_is_told_from_one_that_does_not():
    image = np.zeros((12, 12, 1), np.float32)
    image[4:7, 4:7] = 1

    def value(heatmap):
        return jv.metrics.road(lambda x: x[:, 4:7, 4:7].mean((1, 2)), image, heatmap).value

    assert value(image[..., 0]) > 0.3 > -0.3 > value(-image[..., 0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [({"noise": -1}, "`noise` must be at least 0"), ({"iterations": 0}, "`iterations` must be a")],
)
def test_what_breaks_a_rule_is_told(options, message):
    with pytest.raises(ValueError, match=message):
        jv.metrics.neighbours(**options)
