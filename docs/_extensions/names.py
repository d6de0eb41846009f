"""Code in running text that is a public name of pers becomes a link to the API page."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

import pers
from pers.backends import null, webgpu
from pers.buffers import core
from pers.graphics import native

PLACES = [
    (pers, pers.__all__),
    (null, null.__all__),
    (webgpu, ["WebGPUDevice"]),
    (core, ["NativeBuffer"]),
    (native, [name for name in vars(native) if name.startswith("Native")]),
]
"""The modules that the API page is about, with the names there."""


def find(name: str) -> str | None:
    """Return the full name of a public name or of a member of one."""
    root, _, member = name.partition(".")
    for module, names in PLACES:
        if root in names and (not member or hasattr(getattr(module, root), member)):
            return f"{module.__name__}.{name}"
    return None


def link_names(app: Sphinx, doctree: nodes.document) -> None:
    """Link `Name` and `Name.member`, with or without ``pers.`` before and ``()`` behind."""
    for literal in list(doctree.findall(nodes.literal)):
        if isinstance(literal.parent, nodes.reference | pending_xref) or literal.get("classes"):
            continue
        target = find(literal.astext().removeprefix("pers.").removesuffix("()"))
        if target is not None:
            link = pending_xref("", refdomain="py", reftype="obj", reftarget=target)
            link["refdoc"] = app.env.docname
            literal.replace_self(link)
            link += literal


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("doctree-read", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
