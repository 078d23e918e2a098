"""See what a convolutional network looks at: occlusion maps and class images, compiled by JAX."""

from jaxviz._version import __version__ as __version__
