"""docs/porting.md lists the layers as the registry has them."""

from pathlib import Path

import pytest

pytest.importorskip("onnx")
from caffe_tools import standard
from caffe_tools.errors import CaffeToolsError
from caffe_tools.report.catalogue import TABLE_MARKS, markdown_table, write_table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "porting.md"


def test_the_table_of_layers_is_what_the_registry_says_now(tmp_path):
    page = PAGE.read_text(encoding="utf-8")
    written = tmp_path / "porting.md"
    written.write_text(page, encoding="utf-8")
    write_table(written)
    assert written.read_text(encoding="utf-8") == page, "run: python -m caffe_tools.report.catalogue docs/porting.md"


def test_the_table_has_a_row_for_every_type_that_says_what_it_computes():
    rows = [line.replace(r"\|", "").split(" | ") for line in markdown_table().splitlines()[2:]]
    known = {f"Python: {kind.name}" for kind in standard.PYTHON_TYPES.values()}
    assert {row[0].removeprefix("| ") for row in rows} == set(standard.TYPES) | known
    assert [row[0] for row in rows if not row[1].strip()] == []


@pytest.mark.parametrize("text", ["no table", TABLE_MARKS[0], "".join(reversed(TABLE_MARKS))])
def test_a_page_without_a_place_for_the_table_is_refused(text, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(CaffeToolsError, match="has no place for the table"):
        write_table(page)
    assert page.read_text(encoding="utf-8") == text
