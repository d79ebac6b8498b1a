"""docs/layer_types.md lists the layer types as the registry has them."""

import re
from pathlib import Path

import pytest

pytest.importorskip("onnx")
from caffe_tools import standard
from caffe_tools.report.catalogue import page

PAGE = Path(__file__).resolve().parent.parent / "docs" / "layer_types.md"
COMMAND = "python -m caffe_tools.report.catalogue docs/layer_types.md"


def test_the_page_of_types_is_what_the_registry_says_now():
    assert PAGE.read_text(encoding="utf-8") == page(), f"run: {COMMAND}"


def test_every_type_has_a_row_that_says_what_it_computes():
    rows = [line.replace(r"\|", "").split(" | ") for line in page().splitlines() if re.match(r"\| (?!type )", line)]
    known = {f"Python: {kind.name}" for kind in standard.PYTHON_TYPES.values()}
    assert {row[0].removeprefix("| ") for row in rows} == set(standard.TYPES) | known
    assert [row[0] for row in rows if not row[1].strip()] == []
