"""Settings of Sphinx; `make docs` builds the site."""

import re
from typing import Any

from sphinx.application import Sphinx

from bayesmeta import __version__
from docs.site.docstrings import to_restructured_text

project = "bayesmeta"
author = "The bayesmeta developers"
release = __version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "myst_nb", "docs.site.mathml"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # named as GitHub names them
nb_execution_mode = "off"

autodoc_default_options = {"members": True, "inherited-members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # as the code says them
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"bayesmeta {release}"
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False


def ours(app: Sphinx, kind: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what a class inherits from torch, BoTorch, Optuna or Python."""
    home = getattr(getattr(member, "fget", member), "__module__", None) or "bayesmeta"
    return True if home.split(".")[0] not in ("bayesmeta", "bandits", "bo") else None


def translate(app: Sphinx, kind: str, name: str, member: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_restructured_text("\n".join(lines)).split("\n")


def without_ways_back(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Take links from source code to the reference away: they are wrong for modules that two packages show names of."""
    if page.startswith("_modules/"):
        context["body"] = re.sub(r'<a class="viewcode-back".*?</a>', "", context["body"])


def setup(app: Sphinx) -> None:
    app.connect("autodoc-skip-member", ours)
    app.connect("html-page-context", without_ways_back)
    # before napoleon, whose priority is 500, makes fields of its sections
    app.connect("autodoc-process-docstring", translate, priority=400)
