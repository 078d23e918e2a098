"""Compute what keras-vis computes, number for number: class images, saliency, Grad-CAM.

For those who migrate: losses, optimiser and normalisations are keras-vis's own, surprises included;
`maximize` is the better tool. Images are (height, width, channel) in the units of `input_range`.
Arguments may be given in keras-vis's order and by its names. What differs:

- the softmax of the last layer is taken off first;
- `layer` may be a name, and None or -1 is the output of any scorer;
- `visualize_cam` divides the gradient by the size of its largest value, not by that value: where it
  is negative, keras-vis shows light for evidence against the filter.

| keras-vis | here |
|---|---|
| `visualize_activation(model, layer_idx, filter_indices, …)` | the same; a layer's name or index |
| `visualize_saliency(model, layer_idx, filter_indices, seed_input, …)` | the same |
| `visualize_cam(model, layer_idx, filter_indices, seed_input, …)` | the same |
| `penultimate_layer_idx=…`, `wrt_tensor=…` | the same, or `penultimate=…`, `wrt=…`: a layer |
| `apply_modifications(model)` after `activation = linear` | `logits(model)`; done here |
| `input_modifiers=[Jitter(0.05)]` | the same, or `Roll(0.05)` for a true roll |
| `backprop_modifier="guided"`, `grad_modifier="absolute"` | the same words |
| `callbacks=[Print()]` | `verbose=True`, or `[f]`: f(step, losses, loss, gradient, value) |
| `utils.find_layer_idx(model, name)` | `find_layer(model, name)` |
| `utils.stitch_images(images, margin, cols)` | `stitch(images, margin=…, columns=…)` |
| `overlay(array1, array2, alpha)` | `overlay(first, second, alpha=…)` |

Source: Kotikalapudi and contributors, keras-vis, 2017, https://github.com/raghakot/keras-vis.
"""

from jaxviz.images.filmstrip import stitch
from jaxviz.keras import logits
from jaxviz.keras_vis.modifiers import Jitter, Roll, find_layer, overlay
from jaxviz.keras_vis.visualize import visualize_activation, visualize_cam, visualize_saliency

__all__ = [
    "Jitter",
    "Roll",
    "find_layer",
    "logits",
    "overlay",
    "stitch",
    "visualize_activation",
    "visualize_cam",
    "visualize_saliency",
]
