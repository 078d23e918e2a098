"""What a report of a fault should begin with."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from jaxviz._version import __version__

_PACKAGES = (
    *("jax", "jaxlib", "flax", "numpy", "optax", "matplotlib", "tensorstore"),
    *("keras", "tensorflow", "torch", "equinox", "dm-haiku", "scikit-learn", "zarr"),
)
OTHER_PACKAGE = (
    "another package that is called jaxviz is installed beside this one (jaxviz-cnn), and each may"
    " have overwritten files of the other: uninstall both, then install jaxviz-cnn again"
)


def show_versions() -> None:
    """Print versions, devices and settings, for a report of a fault.

    Packages that are not installed are left out. No path and no name of the machine is printed.

    Example:
        >>> show_versions()  # doctest: +ELLIPSIS
        jaxviz        ...
    """
    import jax

    told = {
        "jaxviz": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{package: found for package in _PACKAGES if (found := _installed(package))},
        "devices": ", ".join(f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()),
        "x64": str(jax.config.read("jax_enable_x64")),
    }
    width = max(map(len, told))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in told.items()))
    if other_package():
        print(f"note: {OTHER_PACKAGE}.", file=sys.stderr)


def other_package() -> bool:
    """Whether the other distribution that imports as `jaxviz` is installed as well."""
    return _installed("jaxviz") is not None


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
