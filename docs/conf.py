"""How Sphinx builds these pages: `sphinx-build -W docs OUTPUT`."""

from __future__ import annotations

import sys
from pathlib import Path

import pers

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "pers"
author = "The pers authors"
copyright = author
version = release = pers.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "names", "signatures"]
exclude_patterns = ["_build", "_extensions"]

# What docstrings call `Name` becomes a link where the name is on the API page.
default_role = "py:obj"

autoclass_content = "both"
autodoc_default_options = {"member-order": "bysource"}
autodoc_preserve_defaults = True
autodoc_type_aliases = {"npt.DTypeLike": "DTypeLike"}
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Cancellation"]

myst_heading_anchors = 3

# A theme that takes its fonts from the reader's machine and fetches nothing.
html_theme = "furo"
html_title = f"pers {version}"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
