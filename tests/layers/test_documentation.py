"""docs/layers.md has what the layers declare."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import caffe_layers
from caffe_layers import normalization

PAGE = Path(__file__).resolve().parents[2] / "docs" / "layers.md"


def parameter_table(layer):
    """The table of a layer's parameters as the page has it."""
    rows = ["| parameter | default | what it may be | what it does |", "|---|---|---|---|"]
    for parameter in layer.parameters:
        kind, doc = (text.replace("|", "\\|") for text in (parameter.kind, parameter.doc))
        rows.append(f"| `{parameter.name}` | `{json.dumps(parameter.default)}` | {kind} | {doc} |")
    return "\n".join(rows)


@pytest.mark.parametrize(
    "layer", [layer for layer in caffe_layers.LAYERS if layer.parameters], ids=lambda x: x.__name__
)
def test_the_page_has_every_parameter_of_every_layer(layer):
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = [section for section in sections if section.startswith(layer.__name__)]
    assert parameter_table(layer) in section


def test_the_page_has_every_layer_and_every_normalization_mode():
    page = PAGE.read_text(encoding="utf-8")
    for layer in caffe_layers.LAYERS:
        assert f"\n## {layer.__name__}\n" in page
    for mode in normalization.MODES:
        assert f"\n| `{mode}` |" in page
