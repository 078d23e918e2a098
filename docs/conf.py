"""How Sphinx builds the documentation: `make docs` writes docs/_build/html/index.html."""

import inspect
import shutil
from pathlib import Path

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
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_execution_excludepatterns: list[str] = []
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
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
    functions = [n for n in jaxviz.__all__ if inspect.isfunction(getattr(jaxviz, n))]
    types = [n for n in jaxviz.__all__ if inspect.isclass(getattr(jaxviz, n))]
    modules = [n for n in jaxviz.__all__ if inspect.ismodule(getattr(jaxviz, n))]
    pages = {
        "functions": ("Functions", [f".. autofunction:: jaxviz.{n}" for n in functions]),
        "types": ("Types", [f".. autoclass:: jaxviz.{n}\n   :members:" for n in types]),
    }
    for name in modules:
        module = getattr(jaxviz, name)
        pages[name] = (
            f"jaxviz.{name}",
            [f".. automodule:: {module.__name__}\n   :members:\n   :imported-members:"],
        )
    for page, (title, directives) in pages.items():
        body = "\n\n".join(f"```{{eval-rst}}\n{directive}\n```" for directive in directives)
        (HERE / "api" / f"{page}.md").write_text(f"# {title}\n\n{body}\n")
    listed = "\n".join(f"api/{page}" for page in pages)
    (HERE / "api.md").write_text(
        "# Reference\n\nEvery public name, from its docstring; `help(jv.occlude)` shows the same.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    )


gather_notebooks()
write_api_pages()
