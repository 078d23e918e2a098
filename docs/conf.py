"""How Sphinx builds the documentation: `make docs` writes docs/_build/html/index.html."""

import inspect
import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

import jaxviz

HERE = Path(__file__).parent
project = "jaxviz"
author = "The jaxviz authors"
project_copyright = "the jaxviz authors"
version = release = jaxviz.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_build", "api/_*"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

# Notebooks are kept without outputs; what the site shows was computed while it was built.
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_execution_excludepatterns: list[str] = []
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "code"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "sphinx_book_theme"
html_title = "jaxviz"
html_static_path = ["_static"]
html_css_files = ["house.css"]
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True}


def gather_notebooks() -> None:
    """Copy the notebooks to where Sphinx looks for pages; a copy that is the same is left alone."""
    target = HERE / "notebooks"
    target.mkdir(exist_ok=True)
    for notebook in (HERE.parent / "notebooks").glob("*.ipynb"):
        copy = target / notebook.name
        if not copy.exists() or copy.read_bytes() != notebook.read_bytes():
            shutil.copyfile(notebook, copy)


def write_api_pages() -> None:
    """Write a page of the reference for each group of public names, from `jaxviz.__all__`."""
    shutil.rmtree(HERE / "api", ignore_errors=True)
    (HERE / "api").mkdir()
    public = {name: getattr(jaxviz, name) for name in jaxviz.__all__}
    functions = {f"jaxviz.{n}": v for n, v in public.items() if inspect.isfunction(v)}
    types = {f"jaxviz.{n}": v for n, v in public.items() if inspect.isclass(v)}
    pages = {
        "functions": ("Functions", "", functions),
        "types": ("Types", "", types),
    }
    for name, module in public.items():
        if inspect.ismodule(module):
            held = {
                f"{module.__name__}.{n}": getattr(module, n)
                for n in getattr(module, "__all__", [])
                if callable(getattr(module, n))
                and getattr(module, n) not in [*functions.values(), *types.values()]
            }
            intro = f"```{{eval-rst}}\n.. automodule:: {module.__name__}\n```\n\n"
            pages[name] = (f"jaxviz.{name}", intro, held)
    for page, (title, intro, members) in pages.items():
        body = "\n\n".join(map(directive, members, members.values()))
        (HERE / "api" / f"{page}.md").write_text(f"# {title}\n\n{intro}{body}\n")
    listed = "\n".join(f"api/{page}" for page in pages)
    (HERE / "api.md").write_text(
        "# Reference\n\nEvery public name, from its docstring, as `help(jv.occlude)` shows it.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    )


def directive(name: str, value: object) -> str:
    """Return the directive that shows one name."""
    if inspect.isclass(value):
        return f"```{{eval-rst}}\n.. autoclass:: {name}\n   :members:\n```"
    return f"```{{eval-rst}}\n.. autofunction:: {name}\n```"


def escape_formulas(
    app: object, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Keep |x|, a*b and **options of a docstring from being read as markup."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = line.split("`")
            parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
            lines[i] = "`".join(parts)


def setup(app: Sphinx) -> None:
    """Register what is above; formulas are escaped before the sections of a docstring are read."""
    app.connect("autodoc-process-docstring", escape_formulas, priority=100)


gather_notebooks()
write_api_pages()
