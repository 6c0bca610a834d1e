"""Documentation as a site, built by ``make docs`` from the repository's own pages.

The source folder is the repository's root, so that the README, the recipes' pages and
their links are used as they are.
"""

import inspect
import re
import textwrap
import warnings
from pathlib import Path

from huggingface_hub import ModelHubMixin
from sphinx.util.typing import stringify_annotation

project = "MS-SincResNet"
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "recipes/**.md", "benchmarks/*.md"]
include_patterns += ["ms_sincresnet/bundled/README.md"]
exclude_patterns = [".*", "docs/_build", "**/results"]

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx_argparse_cli"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
autodoc_default_options = {"members": True, "member-order": "bysource"}
python_maximum_signature_line_length = 120
toc_object_entries_show_parents = "hide"

# numpydoc also reads the docstrings as they were before ``translate``.
warnings.filterwarnings("ignore", "Unknown section (Arguments|Example)")
del ModelHubMixin.__new__  # it hides the signatures of our models

html_theme = "furo"
html_title = project
html_copy_source = html_show_copyright = False

SECTIONS = {"Arguments": "Parameters", "Example": "Examples"}


def translate(app, what, name, documented, options, lines):
    """Rewrites SpeechBrain's sections as numpydoc's; a result's type is its name."""
    text, *sections = re.split(r"^(\w+)\n-{3,}$", "\n".join(lines), flags=re.M)
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        if title in ("Returns", "Yields"):
            returned = inspect.signature(documented).return_annotation
            returned = re.sub(
                r"~?(\w+\.)+", "", stringify_annotation(returned, "smart")
            )
            body = f"\n{returned}\n{textwrap.indent(body.strip(), '    ')}\n\n"
        title = SECTIONS.get(title, title)
        text += f"{title}\n{'-' * len(title)}{body}"
    lines[:] = text.splitlines()


def skip(app, what, name, member, skipped, options):
    """Leaves out what Python says about the fields of a NamedTuple."""
    return (member.__doc__ or "").startswith("Alias for field number") or None


def link_from_the_root(app, error):
    """Writes the page that opens first."""
    page = '<meta http-equiv="refresh" content="0; url=docs/index.html">\n'
    Path(app.outdir, "index.html").write_text(page)


def setup(app):
    app.connect("autodoc-process-docstring", translate, priority=100)
    app.connect("autodoc-skip-member", skip)
    app.connect("build-finished", link_from_the_root)
