"""Files that ask for more than a network: named in an error before anything else is read.

Nothing that a file names is ever looked up, so this is not what keeps us safe; it is what tells the
person who opens such a file what it tries.
"""

import sys
from collections.abc import Mapping
from typing import Any

from jaxviz.keras.architecture.fields import MODELS
from jaxviz.keras.errors import KerasFileError

# Parts of Keras that hold functions which read, fetch, write or unlock, and no part of a network.
_KERAS_TOOLS = frozenset("callbacks config datasets distribution export saving utils".split())
_BUILTINS = frozenset(
    """__import__ breakpoint compile delattr eval exec exit getattr globals input open
    setattr""".split()
)
MAX_DEPTH = 200


def refuse_foreign_objects(config: Any) -> None:
    """Refuse an architecture that names a part of Python, or a tool of Keras, as an object.

    One that is nested beyond what models need is refused too: what follows may then recurse.
    """
    waiting = [(config, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise KerasFileError("The architecture is nested too deeply to be one.")
        if isinstance(node, Mapping):
            _check(node)
            waiting.extend((value, depth + 1) for value in node.values())
        elif isinstance(node, list | tuple):
            waiting.extend((value, depth + 1) for value in node)


def _check(node: Mapping[str, Any]) -> None:
    module, name = node.get("module"), node.get("class_name")
    if not isinstance(module, str) or not isinstance(name, str):
        return
    if name == "function" and isinstance(node.get("config"), str):
        name = node["config"]
    if is_foreign(module, name):
        raise KerasFileError(
            f"The architecture names `{module[:60]}.{name[:60]}`, which is no part of a network; "
            "it is not looked up, and the file is not read."
        )


def is_foreign(module: str, name: str) -> bool:
    """Return whether an object is of Python's own library or a tool of Keras.

    Example:
        >>> is_foreign("os", "system"), is_foreign("keras.layers", "Dense")
        (True, False)
    """
    parts = module.split(".")
    if parts[0] in ("keras", "tf_keras"):
        inner = parts[2:] if parts[1:2] == ["src"] else parts[1:]
        return bool(inner) and (
            inner[0] in _KERAS_TOOLS or (inner[0] == "models" and name not in MODELS)
        )
    if parts[0] == "builtins":
        return name in _BUILTINS
    return parts[0] in sys.stdlib_module_names
