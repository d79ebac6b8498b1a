"""docs/layers.md has what the layers declare, and the examples of their docstrings give what they show."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import caffe_layers
from caffe_layers import normalization
from caffe_layers.functional import FUNCTIONS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "layers.md"


def test_the_page_has_every_layer_as_it_is_now():
    layer_pages = pytest.importorskip("caffe_tools.report.layer_pages")
    page = PAGE.read_text(encoding="utf-8")
    assert layer_pages.with_sections(page) == page, "run python -m caffe_tools.report.layer_pages docs/layers.md"
    for layer in caffe_layers.LAYERS:
        assert f"\n## {layer.__name__}\n" in page


def test_the_page_has_every_normalization_mode():
    for mode in normalization.MODES:
        assert f"\n| `{mode}` |" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("layer", FUNCTIONS, ids=lambda layer: layer.__name__)
def test_every_function_has_an_example_that_gives_what_it_shows(layer):
    function = FUNCTIONS[layer]
    assert "Examples:\n" in function.__doc__, f"{layer.__name__} has no Examples: block in its docstring"
    (example,) = doctest.DocTestFinder().find(function, function.__name__, module=False, globs={})
    report = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    assert result.attempted > 0 and result.failed == 0, "".join(report)
