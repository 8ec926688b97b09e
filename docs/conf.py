"""Settings of the documentation's site, which `bash docs/build.sh` builds."""

import os
import re
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

import ride_mm

ROOT = Path(__file__).resolve().parents[1]
# Where links to files outside this folder lead: to this commit on GitHub if
# GitHub builds the site, otherwise to the files.
SOURCE = ROOT.as_uri()
if 'GITHUB_SHA' in os.environ:
    SOURCE = '{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/blob/{GITHUB_SHA}'.format_map(os.environ)

project = 'ride_mm'
release = version = os.environ.get('GITHUB_REF_NAME', ride_mm.__version__)
copyright = 'the ride_mm authors, Apache-2.0'
extensions = [
    'myst_parser',
    'sphinx.ext.apidoc',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx_gallery.gen_gallery',
]
exclude_patterns = ['api/modules.rst', 'tutorials']
sphinx_gallery_conf = {
    'examples_dirs': 'tutorials',
    'gallery_dirs': 'gallery',
    'filename_pattern': r'\.py',
    'abort_on_example_error': True,
    'capture_repr': (),
    'write_computation_times': False,
}
html_theme = 'furo'
html_title = f'ride_mm {version}'
html_static_path = ['_static']
html_css_files = ['site.css']
html_math_renderer = 'mathml'
myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 3
apidoc_modules = [
    dict(path='../ride_mm', destination='api', module_first=True, automodule_options=[])
]
add_module_names = False
toc_object_entries_show_parents = 'hide'
# Docstrings state the types.
autodoc_typehints = 'none'
# A name that a package exports is described where it is defined.
autodoc_default_options = {
    'members': True,
    'member-order': 'bysource',
    'show-inheritance': True,
    'ignore-module-all': True,
}
napoleon_numpy_docstring = False
napoleon_use_ivar = True

nitpicky = True
nitpick_ignore_regex = [
    # Other projects: no inventory of theirs is read, so that no network is needed.
    (
        r'py:.*',
        r'(collections|gradio|matplotlib|mmcv|mmengine|mmpretrain|nn|np|pickle|rich|torch)\..*',
    ),
    (r'py:class', r'(Base|Image)Classifier|BaseDataset|Batch(DataSample|Sampler)|DataSample'),
    (r'py:class', r'ArgumentParser|Artist|Axes|Config|DataLoader|Dataset|Namespace|Path|Runner'),
    # What Google's style writes after a type.
    (r'py:class', r'optional'),
    # Private base classes.
    (r'py:class', r'ride_mm\..*\._\w+'),
]


def link_to_source(app, docname, source):
    """Let the links that leave this folder lead to the source code."""

    def link(match):
        text, path = match.groups()
        if not Path(ROOT, path.partition('#')[0]).exists():
            logging.getLogger(__name__).warning('%s: there is no %s', docname, path)
        return f'<a href="{SOURCE}/{path}">{text}</a>'

    source[0] = re.sub(r'\[([^][]+)\]\(\.\./([^)]+)\)', link, source[0])


def visit_math(translator, node):
    """Write a formula as MathML, which browsers show without a script."""
    block = isinstance(node, nodes.math_block)
    formula = tex2mathml(node.astext(), as_block=block)
    translator.body.append(f'<div class="formula">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def setup(app):
    app.connect('source-read', link_to_source)
    app.add_html_math_renderer('mathml', (visit_math, None), (visit_math, None))
