"""Options that many functions share are refused alike by all of them: `key` and `progress`."""

import inspect

import jax
import numpy as np
import pytest

import jaxviz as jv
from jaxviz.jaxpr.keys import checked_key, generator
from jaxviz.maximization.objectives import unit

A, M = jv.attribution, jv.metrics
IMAGES = np.random.default_rng(0).random((2, 6, 5, 3), np.float32)
MAPS = IMAGES[..., 0]


def f(images):
    return images.mean((1, 2))


def mean_map(images, target=None):
    return images.mean(-1)


TAKING = {
    "maximize": lambda **o: jv.maximize(f, unit(0), image_shape=(6, 5, 3), **o),
    "visualize_activation": lambda **o: jv.visualize_activation(
        f, None, 0, image_shape=(6, 5, 3), **o
    ),
    "occlude": lambda **o: jv.occlude(f, IMAGES, patch=2, **o),
    "occlude_segments": lambda **o: jv.occlude_segments(f, IMAGES, np.eye(6, 5, dtype=int), **o),
    "saliency": lambda **o: A.saliency(f, IMAGES, **o),
    "smooth": lambda **o: A.smooth(f, IMAGES, samples=1, **o),
    "rise": lambda **o: A.rise(f, IMAGES, samples=2, **o),
    "kernel_shap": lambda **o: A.kernel_shap(f, IMAGES, segments=2, **o),
    "lime": lambda **o: A.lime(f, IMAGES, segments=2, **o),
    "shapley_sampling": lambda **o: A.shapley_sampling(f, IMAGES, segments=2, **o),
    "sobol": lambda **o: A.sobol(f, IMAGES, samples=2, **o),
    "hsic": lambda **o: A.hsic(f, IMAGES, samples=4, **o),
    "deletion": lambda **o: M.deletion(f, IMAGES, MAPS, **o),
    "srg": lambda **o: M.srg(f, IMAGES, MAPS, **o),
    "mu_fidelity": lambda **o: M.mu_fidelity(f, IMAGES, MAPS, grid=2, **o),
    "sensitivity_n": lambda **o: M.sensitivity_n(f, IMAGES, MAPS, **o),
    "infidelity": lambda **o: M.infidelity(f, IMAGES, MAPS, **o),
    "road": lambda **o: M.road(f, IMAGES, MAPS, **o),
    "max_sensitivity": lambda **o: M.max_sensitivity(mean_map, IMAGES, samples=2, **o),
    "random_logit": lambda **o: M.random_logit(mean_map, IMAGES, target=0, classes=3, **o),
    "floors": lambda **o: M.floors(IMAGES, **o),
    "neighbours": lambda **o: M.neighbours(**o),
}


def taking(option):
    """Which functions take an option."""
    homes = (jv, A, M)
    found = {name: next(getattr(h, name) for h in homes if hasattr(h, name)) for name in TAKING}
    return [name for name, run in found.items() if option in inspect.signature(run).parameters]


@pytest.mark.parametrize("key", [0, "seed", jax.random.split(jax.random.key(0)), np.arange(2)])
@pytest.mark.parametrize("name", taking("key"))
def test_what_is_no_random_key_is_refused(name, key):
    with pytest.raises(TypeError, match="`key` must be a random key, such as `jax.random.key"):
        TAKING[name](key=key)


@pytest.mark.parametrize("name", taking("progress"))
def test_what_is_no_progress_is_refused(name):
    options = {"key": jax.random.key(0)} if name == "maximize" else {}
    with pytest.raises(TypeError, match="`progress` must be True, False or a function"):
        TAKING[name](progress="yes", **options)


@pytest.mark.parametrize("value", [0, -3, True, 1.5, np.float32(2), "some"])
@pytest.mark.parametrize("name", taking("batch_size"))
def test_what_is_no_whole_number_is_refused(name, value):
    options = {"key": jax.random.key(0)} if name == "maximize" else {}
    with pytest.raises(ValueError, match="`batch_size` must be .*a whole number from 1: got"):
        TAKING[name](batch_size=value, **options)


def test_many_take_them():
    assert len(taking("key")) >= 15 and len(taking("progress")) >= 12


def test_old_and_new_keys_seed_the_same_numbers():
    new, old = jax.random.key(3), jax.random.PRNGKey(3)
    assert checked_key(new) is new and checked_key(old) is old
    np.testing.assert_array_equal(generator(new).random(4), generator(old).random(4))
    np.testing.assert_array_equal(generator(None).random(4), generator(jax.random.key(0)).random(4))


@pytest.mark.slow
@pytest.mark.parametrize("run", [A.saliency, lambda f, x: A.rise(f, x, samples=2)])
def test_nan_of_the_scorer_is_told_once(run):
    def torn(images):
        bad = images[:, :1, 0, 0] > 0.99
        return jax.numpy.where(bad, jax.numpy.nan, 1.0) * images.mean((1, 2))

    images = IMAGES.copy()
    images[1, 0, 0] = 1.0
    with pytest.warns(UserWarning, match="gave NaN: so are values of 1 of 2 images") as told:
        found = run(torn, images)
    assert len(told) == 1 and told[0].filename == __file__
    assert np.isnan(np.asarray(found.values[1])).any() and np.isfinite(found.values[0]).all()


def test_what_is_no_function_or_file_is_told():
    with pytest.raises(TypeError, match="`method` must be a function, .*: got 'saliency'"):
        A.smooth(f, IMAGES, method="saliency")  # pyright: ignore
    with pytest.raises(TypeError, match="`path` must be a file's name: got None"):
        jv.load(None)  # pyright: ignore


@pytest.mark.slow
def test_scores_without_a_class_are_refused():
    for run in (A.saliency, lambda f, x: jv.occlude(f, x, patch=2)):
        with pytest.raises(ValueError, match=r"`f` must return a score at least: got \(\d+, 0\)"):
            run(lambda images: f(images)[:, :0], IMAGES)
