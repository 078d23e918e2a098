"""Kernels are prepared by a program of their own where an image is evaluated often."""

import numpy as np
import pytest

import jaxviz as jv
from jaxviz.attribution import job


@pytest.mark.parametrize("points, often", [(job.OFTEN - 1, False), (job.OFTEN, True)])
def test_few_evaluations_prepare_nothing(monkeypatch, points, often):
    asked, ahead = [], job.ahead

    def told(*args, often=False):
        asked.append(often)
        return ahead(*args, often=often)

    monkeypatch.setattr(job, "ahead", told)
    images = np.random.default_rng(points).random((1, 9, 9, 1)).astype(np.float32)

    def f(x):
        return (x**2).sum((1, 2)) * points

    jv.attribution.integrated_gradients(f, images, target=0, points=points)
    assert any(asked) == often
