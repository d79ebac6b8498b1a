"""No field of a layer or net is ignored without a word: it is refused, or named in a note where it changes nothing."""

from __future__ import annotations

import re
import warnings

import pytest

from caffe_tools.errors import CaffeToolsError
from nets import inner_product, inputs, layer, net_of, python

X = inputs(x=(2, 3, 4, 4))
CONV = "num_output: 1 kernel_size: 3"


def notes_of(text: str, phase: str = "TEST") -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        net_of(text, phase)
    return [str(warning.message) for warning in found]


def refused(text: str) -> str:
    with pytest.raises(CaffeToolsError) as raised:
        net_of(text, "TEST")
    return str(raised.value)


@pytest.mark.parametrize(
    ("type_", "rest", "said"),
    [
        ("ReLU", "leaky_param { slope: 0.1 }", "it has no field 'leaky_param': no Caffe that is covered here knows it"),
        ("ReLU", "relu_parm { }", "it has no field 'relu_parm': did you mean 'relu_param'?"),
        ("ReLU", "dropout_parm { }", "it has no field 'dropout_parm': did you mean 'dropout_param'?"),
        ("ReLU", "strict_dim: false", "it has no field 'strict_dim'"),
        ("Normalize", 'normalize_param { normalize_type: "L1" }', "it has normalize_param: of a fork whose Normalize"),
        ("ReLU", "blobs_lr: 1", "it has blobs_lr: of the old 'layers': write param { lr_mult: … }"),
        ("Convolution", f"convolution_param {{ {CONV} }} blobs {{ data: 1 }}", "it has blobs: weights in a prototxt"),
        ("ReLU", "dropout_param { dropout_ration: 0.5 }", "dropout_param has no field 'dropout_ration': did you mean"),
        ("ReLU", "include { phase: TEST levels: 1 }", "include has no field 'levels'"),
        ("Convolution", f"convolution_param {{ {CONV} weight_filler {{ typ: 1 }} }}", "has no field 'typ'"),
        ("Convolution", f"convolution_param {{ {CONV} }} param {{ lr: 1 }}", "param has no field 'lr'"),
    ],
)
def test_a_field_that_no_caffe_knows_is_refused_with_its_place(type_, rest, said):
    message = refused(X + layer("it", type_, "x", "y", rest))
    assert re.match(rf"net\.prototxt:2:\d+: layer 'it' \({type_}\):? ", message), message
    assert said in message and "\n" not in message


def test_all_of_them_are_told_at_once():
    text = X + layer("a", "ReLU", "x", "a", "leaky_param { }") + layer("b", "TanH", "a", "b", "blobs_lr: 1")
    message = refused(text)
    assert "layer 'a' (ReLU): it has no field 'leaky_param'" in message
    assert "net.prototxt:3:53: layer 'b' (TanH): it has blobs_lr" in message


def test_so_it_is_in_a_python_layer_and_in_an_old_net():
    text = X + python("p", "SoftmaxLayer", "x", "y").rstrip().removesuffix("}") + " my_param { } }"
    assert "layer 'p' (Python): it has no field 'my_param'" in refused(text)
    assert "it has no field 'my_param'" in refused(X + layer("a", "ReLU", "x", "y", "my_param: 1"))
    old = 'input: "x" input_shape { dim: 1 dim: 2 } layers { name: "a" type: RELU bottom: "x" top: "y"'
    assert "layer 'a' (ReLU): it has no field 'leaky_param'" in refused(old + " leaky_param { } }")


@pytest.mark.parametrize(
    "name", ["dropout_param { dropout_ratio: 0.5 }", "prelu_param { }", "norm_param { }", "loss_param { }"]
)
def test_a_message_of_another_type_is_named_in_a_note(name):
    (note,) = notes_of(X + layer("it", "ReLU", "x", "y", name))
    said = rf"{name.split()[0]} changes nothing: ReLU does not read it, here as in Caffe"
    assert re.fullmatch(rf"net\.prototxt:2:\d+: layer 'it' \(ReLU\): {said}", note)


def test_one_note_stands_for_all_layers_of_a_kind():
    text = X + "".join(layer(name, "ReLU", "x", name, "dropout_param { }") for name in "abc")
    (note,) = notes_of(text)
    assert "layer 'a' (ReLU): dropout_param" in note and note.endswith("(so in 2 other layers: 'b', 'c')")


def test_fields_of_known_forks_are_notes():
    assert [
        "forward_type changes nothing: it says where" in n
        for n in notes_of(X + layer("it", "ReLU", "x", "y", "forward_type: FLOAT"))
    ] == [True]
    assert (
        "quantization_param changes nothing" in notes_of(X + layer("it", "ReLU", "x", "y", "quantization_param { }"))[0]
    )
    (note,) = notes_of("default_forward_type: FLOAT16\n" + X)
    assert (
        note == "net.prototxt:1:1: the net: default_forward_type changes nothing: it says where and how a fork computes"
    )


def test_a_field_of_the_net_that_no_caffe_knows_is_refused():
    assert refused("force_backwards: true\n" + X) == (
        "net.prototxt:1:1: the net has no field 'force_backwards': did you mean 'force_backward'?"
    )
    assert "the net has no field 'base_lr'" in refused(X + "base_lr: 0.1")
    assert "no field 'levels'" in refused(X + "state { levels: 1 }")


def test_what_a_type_reads_is_no_note():
    text = X + inner_product("ip", "x", "y", "param { lr_mult: 1 } include { phase: TEST } propagate_down: true")
    assert notes_of(text) == []


# Layers that say more of themselves -----------------------------------------------------------------------------------


def test_the_options_of_data_layers_are_read_noted_or_refused():
    text = "data_param {{ batch_size: 2 {} }} transform_param {{ crop_size: 3 {} }}"
    data = lambda inside="", transform="": layer("d", "Data", "", "x", text.format(inside, transform))  # noqa: E731
    assert notes_of(data('source: "db" backend: LMDB', "distort_param { } mirror: true")) == []
    assert "data_param: shuffle changes nothing: it says how data is made" in notes_of(data("shuffle: true"))[0]
    assert "transform_param has no field 'crop_sise': did you mean 'crop_size'?" in refused(data("", "crop_sise: 3"))
    assert "it does not transform data" in refused(layer("d", "HDF5Data", "", "x", "transform_param { scale: 2 }"))
    (note,) = notes_of(layer("x", "Input", "", "x", "input_param { shape { dim: 1 } } transform_param { scale: 2 }"))
    assert "transform_param changes nothing: Input does not read it" in note


def test_a_crop_without_offset_is_a_note_where_something_is_cut():
    text = inputs(a=(1, 1, 9, 9), b=(1, 1, 4, 4))
    (note,) = notes_of(text + layer("crop", "Crop", "a b", "y"))
    assert "layer 'crop' (Crop): it gives no offset: 0 is taken, as in BVLC's Caffe" in note
    assert notes_of(text + layer("crop", "Crop", "a b", "y", "crop_param { offset: 0 }")) == []
    assert notes_of(text.replace("9", "4") + layer("crop", "Crop", "a b", "y")) == []
