"""The pages of the project are true: their code runs as it stands, and what they name is there."""

import os
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def blocks(language):
    found = []
    for page in PAGES:
        for number, block in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")), start=1):
            if block[1] == language and "no-run" not in block[2]:
                found.append(pytest.param(block[3], id=f"{page.name}-{number}"))
    return found


@pytest.fixture
def beside_the_examples(tmp_path, monkeypatch):
    """A folder that has the examples, where code may write."""
    os.symlink(ROOT / "prototxt_examples", tmp_path / "prototxt_examples")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_code_in_the_docs_runs(code, beside_the_examples):
    exec(compile(code, "docs", "exec"), {"__name__": "docs"})


@pytest.mark.parametrize("code", blocks("sh"))
def test_commands_in_the_docs_succeed(code, beside_the_examples):
    command_line = pytest.importorskip("caffe_tools.command_line.cli")
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "caffe-layers":
            assert command_line.main(words[1:]) == 0, line


def test_every_link_in_the_docs_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


CODE = [ROOT / "tools" / "caffe_tools", ROOT / "layers" / "caffe_layers"]
NAMED = re.compile(r"(?<![\w/.*-])[a-z_]\w*(?:/\w+)*(?:\.py\b|/(?=[`\s]))")
"""``net/net.py``, ``splits.py``, ``standard/`` in a text."""


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_file_and_folder_that_a_page_names_is_there(name):
    """But for those that its reader makes, which are called ``my_…``."""
    named = {found for found in NAMED.findall((ROOT / name).read_text(encoding="utf-8")) if "my_" not in found}
    files = {path.name for folder in CODE for path in folder.rglob("*.py")}
    assert [
        found
        for found in sorted(named)
        if found not in files and not any((folder / found).exists() for folder in [ROOT, *CODE])
    ] == []
