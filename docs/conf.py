"""Settings of the documentation site, which `make docs` builds."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "_extensions"), str(Path(__file__).parents[1])]

import db3kd  # noqa: E402

project = "db3kd"
author = "The db3kd authors"
version = release = db3kd.__version__
# Blocks without a language are what commands print.
highlight_language = "text"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "myst_parser",
    "docstring_text",
    "generated_text",
    "mathml",
    "repository_links",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
# Names of the field's own libraries are set like code without being links.
default_role = "py:obj"
suppress_warnings = ["misc.highlighting_failure"]

autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
napoleon_use_ivar = True
napoleon_preprocess_types = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# Nothing on the site is loaded from another server: fonts are the system's, formulas are MathML.
html_theme = "furo"
html_title = f"db3kd {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5c8f", "color-brand-content": "#0b5c8f"},
    "dark_css_variables": {"color-brand-primary": "#6cb6e4", "color-brand-content": "#6cb6e4"},
}
