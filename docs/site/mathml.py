"""Formulas as MathML, which browsers show on their own: no script, and none from another server."""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

__all__ = ["setup"]

LOG = logging.getLogger(__name__)


def _show(self: HTML5Translator, node: nodes.Element, as_block: bool) -> None:
    try:
        self.body.append(tex2mathml(node.astext(), as_block=as_block))
    except SyntaxError as error:  # docutils' own for what it cannot read
        LOG.warning("a formula cannot be shown: %s", error, location=node)
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(lambda self, node: _show(self, node, False), None),
        block_renderers=(lambda self, node: _show(self, node, True), None),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
