"""How Sphinx builds these pages: `sphinx-build -W docs OUTPUT`."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

import pers

project = "pers"
author = "The pers authors"
copyright = author
version = release = pers.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
templates_path: list[str] = []

# What docstrings call `Name` becomes a link where the name is on the API page.
default_role = "py:obj"

autodoc_default_options = {"member-order": "bysource"}
autodoc_inherit_docstrings = True
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Cancellation", "returns_style")]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"pers {version}"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
# No icon, font or script comes from elsewhere.
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "monokai"


def link_names(app: Sphinx, doctree: nodes.document) -> None:
    """Turn code in running text that is a public name, or a member of one, into a link."""
    for literal in list(doctree.findall(nodes.literal)):
        if isinstance(literal.parent, nodes.reference | pending_xref) or literal.get("classes"):
            continue
        name = literal.astext().removeprefix("pers.").removesuffix("()")
        root, _, member = name.partition(".")
        if root in pers.__all__ and (not member or hasattr(getattr(pers, root), member)):
            target = f"pers.{name}"
            link = pending_xref(
                "", refdomain="py", reftype="obj", reftarget=target, refwarn=False, refdoc=""
            )
            link["refdoc"] = app.env.docname
            literal.replace_self(link)
            link += literal


def setup(app: Sphinx) -> dict[str, Any]:
    """Register what is above."""
    app.connect("doctree-read", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
