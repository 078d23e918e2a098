"""The page: a template, a style, a script and the data, joined into one file.

The file allows itself nothing but its own style and script, by their hashes, and pictures that are
written in it: no request leaves the page, and text of the user's is never run or read as markup.
"""

import base64
import html
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from jaxviz._files import whole
from jaxviz.viewer._encode import encode_json


@dataclass(frozen=True, repr=False)
class Report:
    """One HTML file that shows a run. As the last value of a notebook's cell it shows itself.

    Attributes:
        html: the whole page.
        count: how many images it shows.
    """

    html: str
    count: int

    def save(self, path: str | Path) -> Path:
        """Write the page to a file, whole or not at all.

        Args:
            path: the file, usually `*.html`; one that is there is replaced.

        Returns:
            Where it was written.

        Raises:
            OSError: the file cannot be written.
        """
        with whole(path) as part:
            part.write_text(self.html, encoding="utf-8")
        return Path(path)

    def _repr_html_(self) -> str:
        # In a frame of its own the page's rules hold as they do in a file.
        return (
            f'<iframe srcdoc="{html.escape(self.html)}" sandbox="allow-scripts allow-downloads"'
            ' style="width:100%;height:680px;border:0" allow="clipboard-write"></iframe>'
        )

    def __repr__(self) -> str:
        images = f"{self.count} image{'s' * (self.count != 1)}"
        return f"Report({images}, {len(self.html) / 1e6:.1f} MB)"


def make_page(data: dict[str, Any], title: str) -> str:
    """Return the page that shows `data`."""
    style, script = _part("viewer.css"), _part("viewer.js")
    policy = (
        "default-src 'none'; img-src data: blob:; base-uri 'none'; form-action 'none';"
        f" style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )
    return (
        _part("viewer.html")
        .replace("{{policy}}", policy)
        .replace("{{style}}", style)
        .replace("{{script}}", script)
        .replace("{{title}}", html.escape(title))
        .replace("{{data}}", encode_json(data))
    )


@cache
def _part(name: str) -> str:
    return (files("jaxviz.viewer") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}"
