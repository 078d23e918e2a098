"""The words that options take, each list once: annotations, checks and the command line use it.

Imports nothing but typing, so that `jaxviz --help` does not import JAX.
"""

from typing import Literal

Method = Literal["auto", "dense", "incremental"]
Border = Literal["clip", "valid", "shift"]
Reduce = Literal["mean", "sum", "cell", "bilinear", "stretch"]
Score = Literal["drop", "raw", "complement", "relative_drop", "log_odds_drop"]
Order = Literal["most_first", "least_first"]
Randomized = Literal["cascading", "independent"]
Channels = Literal["sum", "abs_sum", "max_abs", "norm"]
Normalize = Literal["max_abs", "min_max"]
Upsample = Literal["bilinear", "nearest", "bicubic", "corners", "floor"]
PathRule = Literal["gauss_legendre", "trapezoid", "mean", "right", "midpoint"]
Fuse = Literal["mean", "max"]
Alpha = Literal["paper", "torch_cam", "tf_keras_vis"]
Noise = Literal["range", "absolute"]
Smoothed = Literal["mean", "square", "variance"]
Distance = Literal["cosine", "l2"]
Gating = Literal["signal", "half"]
Stored = Literal["float32", "float16"]
OnError = Literal["raise", "skip"]
# Of `jaxviz bench`: ours, other libraries, networks, dtypes.
OwnMethod = Literal["loop", "dense", "incremental", "approximate"]
Peer = Literal["captum", "xplique", "tf-explain", "seed's loop"]
BenchModel = Literal["mnist_cnn", "vgg16", "resnet50", "mobilenet_v2", "squeezenet"]
BenchDtype = Literal["float32", "bfloat16"]
# Of `jaxviz attribute --method`: functions of `jaxviz.attribution`, and occlusion.
MapMethod = Literal[
    "ablation_cam",
    "deconvnet",
    "deep_lift",
    "eigen_cam",
    "elementwise_cam",
    "grad_cam",
    "grad_cam_pp",
    "guided",
    "guided_grad_cam",
    "hires_cam",
    "hsic",
    "input_x_gradient",
    "integrated_gradients",
    "kernel_shap",
    "layer_cam",
    "lime",
    "lrp",
    "occlusion",
    "rise",
    "saliency",
    "score_cam",
    "shapley_sampling",
    "smooth",
    "sobol",
    "xgrad_cam",
]
# Of `jaxviz judge --metric`: functions of `jaxviz.metrics` that need no masks of objects.
JudgedBy = Literal[
    "srg",
    "deletion",
    "insertion",
    "road",
    "mu_fidelity",
    "sensitivity_n",
    "infidelity",
    "sparseness",
    "complexity",
]
# Of `jaxviz occlude --preset`: functions of `jaxviz.presets`.
PresetName = Literal["seed", "captum", "xplique", "pair", "tf_explain", "monai"]
# Of pictures: what a network takes, and how they are brought to its size.
Preprocess = Literal["model", "unit", "raw", "tf", "torch", "caffe"]
Fit = Literal["stretch", "crop"]
# Of pictures: whether each map has its own scale, or all share one; how a map lies on a photograph.
Scaling = Literal["image", "shared"]
Overlay = Literal["tint", "light", "contour"]
