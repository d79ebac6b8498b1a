"""A file is written whole or not at all, and one line says why it cannot be; what is no .npz is said to be none."""

import os
import pickle
import resource
import subprocess
import sys

import numpy as np
import pytest

from caffe_tools.binaryproto import caffemodel
from caffe_tools.command_line import cli
from caffe_tools.errors import CaffeToolsError
from caffe_tools.export.export import export, save
from caffe_tools.files import load_arrays, save_arrays, write_json, write_text
from caffe_tools.net.net import Net
from nets import inner_product, inputs, net_of

NET = inputs(data=(300, 300)) + inner_product("ip", "data", "y", outputs=300)
WRITERS = {
    "text": lambda path: write_text(path, "x" * 100_000),
    "JSON": lambda path: write_json(path, ["x" * 100_000]),
    "arrays": lambda path: save_arrays(path, {"a": np.ones(100_000), "b": np.ones(100_000)}),
    "weights": lambda path: caffemodel.write(path, [("ip", "InnerProduct", [np.ones(100_000, np.float32)])]),
    "model": lambda path: save(export(net_of(NET)), path),
}
NOT_WRITABLE = {
    "": "an empty file name",
    ".": "cannot write .: is a directory",
    "..": "cannot write ..: is a directory",
    "/": "cannot write /: is a directory",
    "folder": "cannot write folder: is a directory",
    "folder/": "cannot write folder/: is a directory",
    "no/file": "cannot write no/file: there is no such folder",
    "file/inside": "cannot write file/inside: there is no such folder",
    "a\0b": r"cannot write 'a\x00b': a path holds no NUL",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("it")
    (tmp_path / "net.prototxt").write_text(NET)
    return tmp_path


def refused(action, *arguments):
    before = sorted(os.listdir("."))
    with pytest.raises(CaffeToolsError) as raised:
        action(*arguments)
    assert sorted(os.listdir(".")) == before and "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("path", NOT_WRITABLE)
@pytest.mark.parametrize("kind", WRITERS)
def test_what_cannot_be_written_is_said_in_one_line(here, kind, path):
    assert NOT_WRITABLE[path] in refused(WRITERS[kind], path)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_name_that_is_too_long_is_said_in_one_line(here, kind):
    assert "File name too long" in refused(WRITERS[kind], "n" * 300)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_leaves_what_was_there(here, kind):
    (here / "out").write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        message = refused(WRITERS[kind], "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert message == "cannot write out: File too large" and (here / "out").read_text() == "old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("kind", WRITERS)
def test_a_device_is_written_to_and_stays(here, kind):
    assert refused(WRITERS[kind], "/dev/full") == "cannot write /dev/full: No space left on device"
    WRITERS[kind]("/dev/null")
    assert not os.path.isfile("/dev/null") and not os.path.isfile("/dev/full")


OPTIONS = [
    ("check", "net.prototxt", "--json"),
    ("check", "net.prototxt", "--report"),
    ("run", "net.prototxt", "--save"),
    ("upgrade", "net.prototxt", "-o"),
    ("export", "net.prototxt", "-o"),
    ("gradcheck", "caffe_layers:SoftmaxLayer", "--bottom", "2x3", "--json"),
    ("crosscheck", "model.onnx", "SoftmaxLossLayer", "--json"),
]


@pytest.mark.parametrize("path", [path for path in NOT_WRITABLE if "\0" not in path])
@pytest.mark.parametrize("command", OPTIONS, ids=" ".join)
def test_a_command_refuses_such_a_file_before_it_runs(here, command, path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, path])
    printed = capsys.readouterr()
    assert ended.value.code == 2 and printed.out == "" and printed.err.count("\n") == 1
    assert NOT_WRITABLE[path] in printed.err


@pytest.mark.parametrize("stream", ["> /dev/full", ">&-", "2> /dev/full", "2>&-", "> /dev/full 2>&1"])
@pytest.mark.parametrize("command", ["layers", "upgrade net.prototxt", "run nowhere"])
def test_a_stream_that_takes_nothing_is_no_traceback(here, stream, command):
    start = f"{sys.executable} -c 'import sys; from caffe_tools.entry import main; sys.exit(main())'"
    done = subprocess.run(["sh", "-c", f"{start} {command} {stream}"], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr + done.stdout and done.stderr.count("\n") <= 1
    is_written = command != "run nowhere" and not stream.startswith("> /dev/full")
    assert done.returncode == (0 if is_written else 2)


NO_NPZ = {
    "text": (b"1 2 3\n", "is no .npz (a text file?)"),
    "a pickle": (pickle.dumps([1, 2]), "is no .npz (another kind of file)"),
    "nothing": (b"", "is no .npz (the file is empty)"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "is no .npz (an HDF5 file (Caffe's snapshot_format: HDF5))"),
    "cut": (b"PK\3\4", "is no .npz of plain arrays: "),
}


@pytest.mark.parametrize("kind", NO_NPZ)
def test_what_is_no_npz_is_named_without_a_word_of_pickle(here, kind):
    data, says = NO_NPZ[kind]
    (here / "f.npz").write_bytes(data)
    message = refused(load_arrays, "f.npz")
    assert message.startswith(f"f.npz {says}") and "pickle" not in message


def test_an_npz_of_objects_is_refused_without_a_word_of_pickle(here):
    np.savez("f.npz", a=np.array([{}], object))
    message = refused(load_arrays, "f.npz")
    assert message == "f.npz is no .npz of plain arrays: Object arrays cannot be loaded"


@pytest.mark.parametrize("read", [Net, caffemodel.read, load_arrays], ids=["net", "weights", "arrays"])
@pytest.mark.parametrize("path", ["a\0b", "folder", "", "no/x", "n" * 300, "/dev/null"])
def test_what_cannot_be_read_is_said_in_one_line(here, read, path):
    refused(read, path)
