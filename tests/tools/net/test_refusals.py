"""All that is refused in a net is said at once, a short line for each fault."""

import pytest

from caffe_tools.command_line import cli
from caffe_tools.errors import NetError
from nets import inputs, layer, net_of

MANY_FAULTS = (
    inputs(x=(1, 2, 6, 6))
    + layer("a", "Python", "x", "a", 'python_param { module: "m" layer: "A" }')
    + layer("b", "Python", "a", "b", 'python_param { module: "m" layer: "B" }')
    + layer("c", "Convolution", "b", "c", "convolution_param { num_output: 2 kernel_size: 1 strange: 1 axis: true }")
    + layer("foo", "Foo", "c", "foo")
    + layer("act", "relu", "foo", "act")
    + layer("lost", "ReLU", "nowhere", "lost")
)


def faults_of(text, **keywords):
    with pytest.raises(NetError) as raised:
        net_of(text, **keywords)
    error = raised.value
    assert all(len(fault) < 200 and "\n" not in fault for fault in error.faults)
    if len(error.faults) > 1:
        assert str(error).splitlines() == [f"{len(error.faults)} things are wrong:", *error.faults]
    return list(error.faults)


def test_all_that_is_refused_comes_in_one_list():
    faults = faults_of(MANY_FAULTS)
    for part in (
        "layer 'lost' (ReLU): unknown bottom blob 'nowhere'",
        "layer type 'Foo' is not covered: see `caffe-layers layers`",
        "layer type 'relu' is not covered: did you mean 'ReLU'?",
        "the Python layers m.A, m.B: module 'm' is not imported without leave: allow it with --allow-module m",
        "convolution_param has no field 'strange'",
        "convolution_param: axis is 'true', but takes a value of type int",
    ):
        assert sum(part in fault for fault in faults) == 1
    assert len(faults) == 6


def test_the_command_line_gives_each_fault_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(MANY_FAULTS)
    assert cli.main(["check", "net.prototxt"]) == 2
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert lines[0] == "caffe-layers: 6 things are wrong:" and len(lines) == 7 and printed.out == ""


def test_many_unknown_types_are_counted_and_it_is_said_how_to_see_all():
    text = inputs(x=(2,)) + "".join(layer(f"block{i}/head", f"RegressionHead{i}", "x", f"y{i}") for i in range(200))
    (fault,) = faults_of(text)
    assert fault.startswith("200 layers have types that are not covered: RegressionHead0, ")
    assert "and 198 more" in fault and "`caffe-layers layers NET.prototxt` lists them all" in fault


def test_a_fault_that_many_layers_share_is_said_once():
    text = inputs(x=(2, 3)) + "".join(
        layer(f"ip{i}", "InnerProduct", "x", f"y{i}", "inner_product_param { num_output: 2 strange: 1 }")
        for i in range(9)
    )
    (fault,) = faults_of(text)
    assert "layer 'ip0' (InnerProduct): inner_product_param has no field 'strange'" in fault
    assert fault.endswith("(and 8 more layers)")


def test_layers_of_one_unknown_type_are_counted():
    text = inputs(x=(2,)) + "".join(layer(f"a{i}", "Foo", "x", f"y{i}") for i in range(3))
    (fault,) = faults_of(text)
    assert fault.startswith("net.prototxt:2:1: layer 'a0' (Foo): layer type 'Foo' is not covered (3 layers have it): ")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("relu", "ReLU"),
        ("RELU", "ReLU"),
        ("INNER_PRODUCT", "InnerProduct"),
        ("innerproduct", "InnerProduct"),
        ("Batch Norm", "BatchNorm"),
        ("lstm", "LSTM"),
        ("Dropuot", "Dropout"),
    ],
)
def test_a_type_written_otherwise_is_recognised(written, meant):
    (fault,) = faults_of(inputs(x=(2,)) + layer("a", written, "x", "y"))
    assert fault.endswith(f"layer type '{written}' is not covered: did you mean '{meant}'?")


def test_modules_that_cannot_be_imported_are_all_named():
    faults = faults_of(
        inputs(x=(2,)) + layer("a", "Python", "x", "a", 'python_param { module: "gone_a" layer: "A" }'),
        allow_modules=["gone_a", "gone_b"],
    )
    assert [fault.partition(":")[0] for fault in faults] == [
        "cannot import module 'gone_a'",
        "cannot import module 'gone_b'",
    ]


def test_a_class_that_is_not_there_is_named_beside_other_faults():
    faults = faults_of(
        inputs(x=(2, 3))
        + layer("a", "Python", "x", "a", 'python_param { module: "caffe_layers" layer: "SoftmaxLosLayer" }')
        + layer("b", "Foo", "x", "b")
    )
    assert any("has no class 'SoftmaxLosLayer': did you mean 'SoftmaxLossLayer'?" in fault for fault in faults)
    assert len(faults) == 2


def test_the_types_of_a_net_are_listed_with_what_they_take(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(MANY_FAULTS)
    assert cli.main(["layers", "net.prototxt"]) == 0
    rows = {line.split("  ")[0].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert rows["Foo"].split() == ["Foo", "1", "not", "covered"]
    assert "did you mean 'ReLU'?" in rows["relu"] and "--allow-module m" in rows["Python m.A"]
    assert "3 of 7 types are covered." in rows
