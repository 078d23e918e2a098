"""What other libraries make of class activation maps, by name.

Each returns keyword arguments of a method, for `**`; the map is then what the library returns, of
one layer and for float images, up to rounding:

    jv.attribution.grad_cam(f, images, **jv.attribution.presets.pytorch_grad_cam()).heatmap()
"""

from typing import Any, Literal

from jaxviz.attribution.reading import MapReading

__all__ = ["captum", "pytorch_grad_cam", "tf_keras_vis", "torch_cam", "xplique"]

Method = Literal[
    "grad_cam", "grad_cam_pp", "xgrad_cam", "layer_cam", "hires_cam", "elementwise_cam"
]
Arguments = dict[str, Any]


def _checked(method: str, known: dict[str, Arguments]) -> Arguments:
    if method not in known:
        names = ", ".join(f'"{name}"' for name in known)
        raise ValueError(f"`method` must be one of {names}: got {method!r}.")
    return known[method]


def pytorch_grad_cam(method: Method = "grad_cam") -> Arguments:
    """Return the convention of pytorch-grad-cam.

    The map is rectified, scaled to 0…1 with 1e-7 added to the divisor, enlarged bilinearly, and
    scaled again; the divisor of Grad-CAM++ gets 1e-6, that of XGrad-CAM 1e-7.

    Args:
        method: of which method.

    Returns:
        Keyword arguments of that method.

    Raises:
        ValueError: there is no preset for that method.

    Example:
        >>> pytorch_grad_cam("grad_cam_pp")["epsilon"]
        1e-06

    Source: https://github.com/jacobgil/pytorch-grad-cam
    """
    plain: Arguments = {}
    known = {
        "grad_cam": plain,
        "grad_cam_pp": {"epsilon": 1e-6},
        "xgrad_cam": {"epsilon": 1e-7},
        **dict.fromkeys(("layer_cam", "hires_cam", "elementwise_cam"), plain),
    }
    reading = MapReading(normalize="min_max", epsilon=1e-7, before=True, rectify=True)
    return {**_checked(method, known), "reading": reading}


def torch_cam(method: Method = "grad_cam") -> Arguments:
    """Return the convention of torch-cam.

    The map is rectified and scaled to 0…1, with 1e-8 added to the divisor, at the layer's size. In
    Grad-CAM++ the library's division is lost (it divides a copy), so that α = G².

    Args:
        method: of which method.

    Returns:
        Keyword arguments of that method.

    Raises:
        ValueError: there is no preset for that method.

    Example:
        >>> torch_cam()["reading"].upsample is None
        True

    Source: https://github.com/frgfm/torch-cam
    """
    known: dict[str, Arguments] = {
        "grad_cam": {},
        "grad_cam_pp": {"alpha": "torch_cam"},
        "xgrad_cam": {"epsilon": 1e-8},
        "layer_cam": {},
    }
    reading = MapReading(normalize="min_max", epsilon=1e-8, upsample=None)
    return {**_checked(method, known), "reading": reading}


def tf_keras_vis(method: Method = "grad_cam") -> Arguments:
    """Return the convention of tf-keras-vis.

    The map is rectified, enlarged linearly with the corners kept in place, and scaled to 0…1 with
    1e-7 added to the divisor. In Grad-CAM++ α is divided by its sum over sites; its factor exp(s)
    is left out, which only the 1e-7 tells.

    Args:
        method: of which method.

    Returns:
        Keyword arguments of that method.

    Raises:
        ValueError: there is no preset for that method.

    Example:
        >>> tf_keras_vis()["reading"].upsample
        'corners'

    Source: https://github.com/keisen/tf-keras-vis
    """
    known: dict[str, Arguments] = {
        "grad_cam": {},
        "grad_cam_pp": {"alpha": "tf_keras_vis"},
        "layer_cam": {},
    }
    reading = MapReading(normalize="min_max", epsilon=1e-7, upsample="corners")
    return {**_checked(method, known), "reading": reading}


def captum() -> Arguments:
    """Return the convention of captum's `LayerGradCam`, enlarged by `LayerAttribution.interpolate`.

    Nothing is rectified or scaled; a pixel reads the site ⌊i·h/H⌋.

    Returns:
        Keyword arguments of `grad_cam`.

    Example:
        >>> captum()["rectify"]
        False

    Source: https://captum.ai/api/layer.html
    """
    return {"rectify": False, "reading": MapReading(upsample="floor")}


def xplique(method: Method = "grad_cam") -> Arguments:
    """Return the convention of xplique: rectified, enlarged bicubically, nothing scaled.

    Args:
        method: of which method.

    Returns:
        Keyword arguments of that method.

    Raises:
        ValueError: there is no preset for that method.

    Example:
        >>> xplique()["reading"].upsample
        'bicubic'

    Source: https://github.com/deel-ai/xplique
    """
    return {**_checked(method, {"grad_cam": {}}), "reading": MapReading(upsample="bicubic")}
