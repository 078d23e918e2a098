"""Occlusion of real networks from Keras files: equal to the loop, and lit where the animal is."""

import jax
import numpy as np
import pytest
from oracles import slow_scores
from PIL import Image

from jaxviz.keras import load_keras
from jaxviz.occlusion.occlude import occlude

RESNET = "keras/mlcommons__tiny/pretrainedResnet.h5"
XCEPTION = "keras/oarriaga__face_classification/fer2013_mini_XCEPTION.102-0.66.hdf5"
SQUEEZENET = "imagenet/squeezenet_v1.0_derived.keras"
ZEBRA = 340


def photo(data_folder, name, size, mode):
    """A photograph of the data folder, float32 (size, size, C), 0 to 255."""
    image = Image.open(data_folder / "photos" / name).convert(mode)
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), np.float32)
    return pixels.reshape(size, size, -1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "file, size, mode, scale, method",
    [(RESNET, 32, "RGB", 1.0, "incremental"), (XCEPTION, 64, "L", 255.0, "dense")],
    ids=["ResNet-8", "mini-XCEPTION"],
)
def test_a_real_network_equals_the_loop(data_folder, file, size, mode, scale, method):
    model = load_keras(data_folder / file)
    image = photo(data_folder, "dog_cat_224.jpg", size, mode) / scale
    grid = dict(patch=(size // 4, size // 4), stride=(size // 4, size // 4), margin=(0, 3))
    occ = occlude(model, image, **grid, fill=image.mean(), method=method)
    wanted = slow_scores(
        jax.jit(lambda x: model(x.astype(np.float32))), image, **grid, fill=image.mean()
    )
    np.testing.assert_allclose(occ.scores, wanted, atol=1e-5)
    assert occ.scores.std() > 1e-4


@pytest.mark.slow
def test_squeezenet_sees_the_zebra_where_it_stands(data_folder):
    photograph = photo(data_folder, "captum_zebra.jpg", 227, "RGB")
    image = photograph[..., ::-1] - np.array([104, 117, 123], np.float32)
    model = load_keras(data_folder / SQUEEZENET)
    occ = occlude(model, image, patch=48, stride=24, fill="mean")
    assert occ.base.argmax() == ZEBRA and occ.base.max() > 0.9
    heatmap = occ.heatmap(ZEBRA)
    body = np.zeros(heatmap.shape, bool)
    body[60:195, 30:215] = True
    assert body.ravel()[heatmap.argmax()]
    assert heatmap[body].mean() > 4 * np.abs(heatmap[~body].mean())
