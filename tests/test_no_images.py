"""Whatever is given in place of images is refused in one sentence by whoever takes images."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxviz as jv
from jaxviz.maximization.objectives import unit

A, M, P = jv.attribution, jv.metrics, jv.plot
IMAGES = np.random.default_rng(0).random((2, 6, 5, 3), np.float32)
MAPS = IMAGES[..., 0]
KEY = jax.random.key(0)


def f(images):
    return images.mean((1, 2))


TAKING = {
    "occlude": lambda x: jv.occlude(f, x, patch=2),
    "segments": lambda x: jv.occlude_segments(f, x, np.zeros((6, 5), int)),
    "scores": lambda x: jv.occlusion_scores(f, x, patch=2),
    "explain": lambda x: jv.explain(f, x, patch=2),
    "incremental": lambda x: jv.incremental(f, x, 2),
    "activations": lambda x: jv.activations(f, x),
    "dataset": lambda x: jv.occlude_dataset(f, x, "never", patch=2, progress=False),
    "start": lambda x: jv.maximize(f, unit(0), image_shape=(6, 5, 3), key=KEY, start=x),
    "kv.saliency": lambda x: jv.visualize_saliency(f, None, 0, x),
    "kv.cam": lambda x: jv.visualize_cam(f, None, 0, x),
    "seed": lambda x: jv.visualize_activation(f, None, 0, seed_input=x, image_shape=(6, 5, 3)),
    "saliency": lambda x: A.saliency(f, x),
    "rise": lambda x: A.rise(f, x, samples=2),
    "traced": lambda x: jax.jit(lambda w: A.saliency(lambda y: w * f(y), x).values)(1.0),
    "deletion": lambda x: M.deletion(f, x, MAPS),
    "maps": lambda x: M.deletion(f, IMAGES, x),
    "infidelity": lambda x: M.infidelity(f, x, IMAGES),
    "values": lambda x: M.infidelity(f, IMAGES, x),
    "max_sensitivity": lambda x: M.max_sensitivity(lambda x: x, x),
    "floors": lambda x: M.floors(x),
    "pointing game": lambda x: M.pointing_game(x, MAPS > 0.5),
    "masks": lambda x: M.pointing_game(MAPS, x),
    "compare": lambda x: M.compare(f, x, {"a": MAPS}, metrics=["srg"]),
    "random_logit": lambda x: M.random_logit(lambda x, t: x, x, target=0, classes=3),
    "heatmap": lambda x: P.heatmap(x),
    "overlay": lambda x: P.overlay(x, MAPS[0]),
    "gallery": lambda x: P.gallery(x),
    "plot.activations": lambda x: P.activations(x),
    "plot.compare": lambda x: P.compare(x, {"a": MAPS}),
    "plot.occlusion": lambda x: P.occlusion(x, MAPS),
    "kernels": lambda x: P.kernels(x),
    "preprocess": lambda x: jv.images.preprocess(x, f, preprocessing="unit"),
}
GIVEN = {
    "nothing": None,
    "a name": "photo.png",
    "a path": Path("photo.png"),
    "paths": [Path("a.png"), Path("b.png")],
    "names": ["a.png", "b.png"],
    "objects": np.array([None, None]),
    "unequal": [IMAGES[0], IMAGES[0, :3]],
    "complex": 1j * IMAGES,
}
# Elsewhere these mean something: "no start", names of files, an argument left out, any tree.
MEANT = {("start", "nothing"), ("seed", "nothing"), ("incremental", "complex")}


@pytest.mark.slow
@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("taking", TAKING)
def test_what_is_no_image_is_refused_in_a_sentence(taking, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a store would be made, were it not refused
    if (taking, given) in MEANT:
        pytest.skip("it is something there")
    with pytest.raises(
        (TypeError, ValueError), match=r"^`\w+(\['\w+'\])?` must|^`source`: "
    ) as told:
        TAKING[taking](GIVEN[given])
    assert len(re.findall(r"[.] [A-Z]", str(told.value))) <= 1


@pytest.mark.parametrize("shape", [None, "a.png", 3, (6, 5), (6, 5, 0), (6, 5, None), (6, 5, 1.5)])
def test_what_is_no_shape_is_refused_in_a_sentence(shape):
    match = "`image_shape` must be three positive integers"
    for run in (
        lambda: jv.estimate(f, shape, 2, patch=2),
        lambda: jv.maximize(f, unit(0), image_shape=shape, key=KEY),
        lambda: jv.visualize_activation(f, None, 0, image_shape=shape),
    ):
        with pytest.raises(ValueError, match=match):
            run()


@pytest.mark.parametrize("maps", [[MAPS], MAPS, None])
def test_maps_to_compare_have_names(maps):
    with pytest.raises(TypeError, match="`maps` must be a dictionary, name -> maps"):
        M.compare(f, IMAGES, maps)
    with pytest.raises(TypeError, match="`maps` must be a dictionary, name -> maps"):
        P.compare(IMAGES, maps)
    with pytest.raises(TypeError, match="`named` must be a dictionary, name -> curve"):
        P.curves(maps)


def test_curves_are_curves():
    with pytest.raises(TypeError, match="got a dict of ndarray"):
        P.curves({"a": MAPS})
