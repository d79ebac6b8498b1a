"""Every Caffe type has a test of its numbers: cases of a real Caffe, or a test module in its chapter's folder here."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import golden
from caffe_tools import standard

HERE = Path(__file__).parent
TESTS_OF_NUMBERS = [*HERE.glob("*/test_*.py"), HERE / "test_standard_layers.py"]


def types_with_cases() -> set[str]:
    """Types that a real Caffe ran alone, or as a loss: test_golden_layers.py and test_golden_losses.py compare them."""
    cases = [*golden.parameters("layer"), *golden.parameters("loss")]
    return {type_ for case in cases if case.values[0] is not None for type_ in case.values[0].layers}


def types_with_a_module() -> set[str]:
    """Types that a test module names, not only in tests of what is refused."""
    found: set[str] = set()
    for module in TESTS_OF_NUMBERS:
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            text = ast.unparse(node)
            if "pytest.raises" not in text or re.search(r"assert .*==|np\.testing", text):
                found.update(re.findall(r"[\"'](\w+)[\"']", text))
    return found


@pytest.mark.skipif(not golden.FOLDER.is_dir(), reason="needs the reference data in shared/golden beside the project")
@pytest.mark.parametrize("type_", sorted(standard.TYPES))
def test_a_type_has_a_test_of_its_numbers(type_):
    assert type_ in types_with_cases() | types_with_a_module(), (
        f"{type_} has no test of its numbers: write a module in tests/tools/standard/, in the folder of its chapter"
    )
