"""Code in running text that is a public name of pers becomes a link to the API page."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

import pers


def link_names(app: Sphinx, doctree: nodes.document) -> None:
    """Link `Name` and `Name.member`, with or without ``pers.`` before and ``()`` behind."""
    for literal in list(doctree.findall(nodes.literal)):
        if isinstance(literal.parent, nodes.reference | pending_xref) or literal.get("classes"):
            continue
        name = literal.astext().removeprefix("pers.").removesuffix("()")
        root, _, member = name.partition(".")
        if root in pers.__all__ and (not member or hasattr(getattr(pers, root), member)):
            link = pending_xref("", refdomain="py", reftype="obj", reftarget=f"pers.{name}")
            link["refdoc"] = app.env.docname
            literal.replace_self(link)
            link += literal


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("doctree-read", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
