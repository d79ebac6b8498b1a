"""Nets of Caffe's older formats in today's form."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffe_tools.errors import CaffeToolsError
from caffe_tools.prototxt.message import Identifier
from caffe_tools.prototxt.text import load, parse, to_text
from caffe_tools.prototxt.upgrade import V1_TYPES, upgrade
from caffe_tools.prototxt.upgrade_v0 import V0_TYPES
from messages import drawn_messages


def becomes(old, new):
    assert to_text(upgrade(parse(old))) == to_text(parse(new))


def error_of(text):
    with pytest.raises(CaffeToolsError) as raised:
        upgrade(parse(text, "f"))
    assert "\n" not in str(raised.value)
    return str(raised.value)


# --- nets of today


def test_a_net_of_today_comes_back_equal_and_is_not_shared():
    text = """name: "n" force_backward: true fork_field { x: 1 }
    layer { name: "c" type: "Concat" bottom: "a" top: "b" concat_param { concat_dim: 1 } param { lr_mult: 2 } }"""
    net = parse(text)
    result = upgrade(net)
    assert result == net
    result.first("layer").set("name", ["other"])
    assert net == parse(text)


def test_the_old_net_itself_is_left_as_it_is():
    text = 'input: "x" input_dim: [1, 2, 3, 4] layers { type: DATA data_param { scale: 2 } }'
    net = parse(text)
    upgrade(net)
    assert net == parse(text)


# --- net-level inputs


def test_inputs_with_four_dims_each_become_one_input_layer_at_the_front():
    becomes(
        'name: "n" input: "a" input: "b" input_dim: [1, 2, 3, 4, 5, 6, 7, 8] layer { name: "l" type: "ReLU" }',
        """name: "n" layer { name: "input" type: "Input" top: "a" top: "b" input_param {
             shape { dim: [1, 2, 3, 4] } shape { dim: [5, 6, 7, 8] } } }
           layer { name: "l" type: "ReLU" }""",
    )


def test_an_input_shape_may_have_any_number_of_axes():
    becomes(
        'input: "a" input: "b" input_shape { dim: 3 } input_shape { dim: 2 dim: 5 }',
        'layer { name: "input" type: "Input" top: ["a", "b"] '
        "input_param { shape { dim: 3 } shape { dim: 2 dim: 5 } } }",
    )


def test_input_shape_precedes_input_dim_as_in_caffe():
    becomes(
        'input: "a" input_dim: [1, 1, 1, 1] input_shape { dim: 3 }',
        'layer { name: "input" type: "Input" top: "a" input_param { shape { dim: 3 } } }',
    )


@pytest.mark.parametrize("shapes", ["", "input_dim: [1, 2, 3, 4]", "input_shape { dim: 1 }"])
def test_an_input_without_a_shape_is_an_error(shapes):
    error = error_of(f'input: "a" input: "b" {shapes}')
    assert error.startswith("f:1:1: each of the 2 inputs needs one input_shape or four input_dim, found ")


# --- V1


@pytest.mark.parametrize(("constant", "number", "today"), [(name, *entry) for name, entry in V1_TYPES.items()])
def test_every_v1_type_is_taken_by_name_and_by_number(constant, number, today):
    becomes(f"layers {{ type: {constant} }}", f'layer {{ type: "{today}" }}')
    becomes(f"layers {{ type: {number} }}", f'layer {{ type: "{today}" }}')


def test_the_v1_numbers_are_all_different():
    numbers = [number for number, _ in V1_TYPES.values()]
    assert sorted(numbers) == list(range(40))


def test_multipliers_names_and_share_modes_become_one_param_per_blob():
    becomes(
        """layers { name: "ip" type: INNER_PRODUCT bottom: "a" top: "b" blobs_lr: 1. blobs_lr: 2 weight_decay: 0
             param: "w" param: "b" blob_share_mode: PERMISSIVE inner_product_param { num_output: 3 } }""",
        """layer { name: "ip" type: "InnerProduct" bottom: "a" top: "b"
             param { name: "w" share_mode: PERMISSIVE lr_mult: 1. decay_mult: 0 } param { name: "b" lr_mult: 2 }
             inner_product_param { num_output: 3 } }""",
    )


def test_fields_of_a_fork_and_of_no_interest_are_kept():
    becomes(
        "fork: 1 layers { type: SOFTMAX_LOSS fork_param { x: [1, 2] } include { phase: TRAIN } loss_weight: 2 }",
        'fork: 1 layer { type: "SoftmaxWithLoss" loss_weight: 2 fork_param { x: [1, 2] } include { phase: TRAIN } }',
    )


@pytest.mark.parametrize(
    ("constant", "today", "param"),
    [
        ("DATA", "Data", "data_param"),
        ("IMAGE_DATA", "ImageData", "image_data_param"),
        ("WINDOW_DATA", "WindowData", "window_data_param"),
    ],
)
def test_transform_fields_of_data_layers_move_to_transform_param(constant, today, param):
    becomes(
        f"""layers {{ type: {constant} {param} {{ source: "s" scale: 0.5 mean_file: "m" crop_size: 9 mirror: true }}
              transform_param {{ force_gray: true }} }}""",
        f"""layer {{ type: "{today}" {param} {{ source: "s" }}
              transform_param {{ force_gray: true scale: 0.5 mean_file: "m" crop_size: 9 mirror: true }} }}""",
    )
    becomes(
        f"layers {{ type: {constant} {param} {{ mirror: true }} }}",
        f'layer {{ type: "{today}" {param} {{ }} transform_param {{ mirror: true }} }}',
    )


def test_the_same_fields_of_other_layers_stay():
    becomes(
        "layers { type: POWER power_param { scale: 2 } data_param { scale: 2 } }",
        'layer { type: "Power" power_param { scale: 2 } data_param { scale: 2 } }',
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            'layers { type: "Convolution" }',
            "f:1:10: in 'layers' a type is a constant such as CONVOLUTION: write 'layer' for type: \"Convolution\"",
        ),
        ("layers { type: CONV }", "f:1:10: unknown V1 layer type CONV: did you mean "),
        ("layers { type: 99 }", "f:1:10: unknown V1 layer type 99: "),
        (
            "layers { type: RELU param { lr_mult: 1 } }",
            "f:1:21: in 'layers' a param is a quoted name: write 'layer' where it is 'param { }'",
        ),
        ("layers { param: w }", "f:1:10: expected a quoted string for 'param', found w"),
        ("layers { } layer { }", "f:1:12: a net has either 'layers' (old) or 'layer': Caffe would drop this one"),
        ("layers: 3", "f:1:1: expected 'layers { ... }', found 3"),
        ("layer: 3", "f:1:1: expected 'layer { ... }', found 3"),
        ("input: x", "f:1:1: expected a quoted string for 'input', found x"),
    ],
)
def test_a_misuse_of_an_old_form_is_one_line(text, problem):
    assert error_of(text).startswith(problem)


# --- V0


def test_a_v0_convolution():
    becomes(
        """layers { layer { name: "c" type: "conv" num_output: 4 kernelsize: 3 stride: 2 group: 1 pad: 1 biasterm: false
             weight_filler { type: "gaussian" std: 0.1 } blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0 }
             bottom: "a" top: "b" }""",
        """layer { name: "c" type: "Convolution" bottom: "a" top: "b"
             param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
             convolution_param { num_output: 4 kernel_size: 3 stride: 2 group: 1 pad: 1 bias_term: false
               weight_filler { type: "gaussian" std: 0.1 } } }""",
    )


@pytest.mark.parametrize(
    ("fields", "today", "params"),
    [
        (
            'type: "pool" pool: AVE kernelsize: 3 stride: 2',
            "Pooling",
            "pooling_param { pool: AVE kernel_size: 3 stride: 2 }",
        ),
        ('type: "lrn" local_size: 3 alpha: 0.1 k: 2', "LRN", "lrn_param { local_size: 3 alpha: 0.1 k: 2 }"),
        ('type: "dropout" dropout_ratio: 0.2', "Dropout", "dropout_param { dropout_ratio: 0.2 }"),
        ('type: "concat" concat_dim: 0', "Concat", "concat_param { concat_dim: 0 }"),
        ('type: "infogain_loss" source: "h"', "InfogainLoss", 'infogain_loss_param { source: "h" }'),
        ('type: "softmax_loss"', "SoftmaxWithLoss", ""),
        (
            'type: "data" source: "db" batchsize: 8 scale: 0.5 meanfile: "m" cropsize: 9 mirror: true rand_skip: 3',
            "Data",
            'transform_param { scale: 0.5 mean_file: "m" crop_size: 9 mirror: true } '
            'data_param { source: "db" batch_size: 8 rand_skip: 3 }',
        ),
        (
            'type: "images" source: "list" shuffle_images: true new_height: 4 new_width: 5',
            "ImageData",
            'image_data_param { source: "list" shuffle: true new_height: 4 new_width: 5 }',
        ),
        (
            'type: "window_data" det_fg_threshold: 0.6 det_crop_mode: "square" det_context_pad: 16',
            "WindowData",
            'window_data_param { fg_threshold: 0.6 crop_mode: "square" context_pad: 16 }',
        ),
        (
            'type: "hdf5_output" hdf5_output_param { file_name: "f" }',
            "HDF5Output",
            'hdf5_output_param { file_name: "f" }',
        ),
        ('type: "relu" fork_param { x: 1 }', "ReLU", "fork_param { x: 1 }"),
    ],
)
def test_the_parameters_of_a_v0_layer_move_to_its_param_message(fields, today, params):
    becomes(f"layers {{ layer {{ {fields} }} }}", f'layer {{ type: "{today}" {params} }}')


@pytest.mark.parametrize("v0_type", V0_TYPES)
def test_every_v0_type_has_a_type_of_today(v0_type):
    (layer,) = upgrade(parse(f'layers {{ layer {{ type: "{v0_type}" }} }}')).messages("layer")
    assert layer.first("type") in {today for _, today in V1_TYPES.values()}


@pytest.mark.parametrize(("reader", "param"), [("conv", "convolution_param"), ("pool", "pooling_param")])
def test_a_padding_layer_is_folded_into_every_layer_that_reads_it(reader, param):
    net = upgrade(
        parse(f"""input: "data" input_shape {{ dim: 1 }}
          layers {{ layer {{ name: "p" type: "padding" pad: 2 }} bottom: "data" top: "padded" }}
          layers {{ layer {{ name: "a" type: "{reader}" kernelsize: 5 }} bottom: "padded" top: "a" }}
          layers {{ layer {{ name: "b" type: "{reader}" pad: 7 }} bottom: "padded" top: "b" }}""")
    )
    _, a, b = net.messages("layer")
    assert a.fields("bottom") == b.fields("bottom") == ["data"]
    assert a.first(param) == parse("kernel_size: 5 pad: 2")
    assert b.first(param) == parse("pad: 2")


def test_a_blob_that_is_written_again_no_longer_comes_from_the_padding_layer():
    net = upgrade(
        parse("""layers { layer { type: "padding" pad: 2 } bottom: "x" top: "y" }
          layers { layer { type: "data" source: "s" } top: "y" }
          layers { layer { type: "relu" } bottom: "y" top: "z" }""")
    )
    assert net.messages("layer")[1].fields("bottom") == ["y"]


def test_a_parameter_that_means_nothing_in_a_v0_layer_is_dropped_with_a_warning():
    with pytest.warns(UserWarning, match="f:1:32: 'stride' means nothing in a relu layer and is dropped"):
        net = upgrade(parse('layers { layer { type: "relu"  stride: 2 } }', "f"))
    assert net == parse('layer { type: "ReLU" }')


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            'layers { layer { type: "padding" } bottom: "x" top: "y" } layers { layer { type: "relu" } bottom: "y" }',
            "f:1:91: 'y' comes from a padding layer, which only a conv or pool layer can read, alone",
        ),
        (
            'layers { layer { type: "padding" } top: "y" } layers { layer { type: "conv" } bottom: "y" }',
            "f:1:1: a padding layer has one bottom and one top",
        ),
        ('layers { layer { type: "Conv" } }', "f:1:18: unknown V0 layer type 'Conv': did you mean 'conv'?"),
        ('layers { layer { type: "conv" } blobs_lr: 1 }', "f:1:33: 'blobs_lr' beside a V0 'layer {' is ignored"),
        ("layers { layer { } layer { } }", "f:1:20: a second 'layer {' in one 'layers {'"),
    ],
)
def test_a_misuse_of_v0_is_one_line(text, problem):
    assert error_of(text).startswith(problem)


# --- BatchNorm


def test_three_params_of_a_batch_norm_are_frozen_and_keep_their_names():
    becomes(
        """layer { type: "BatchNorm" param { lr_mult: 1 decay_mult: 2 } param { name: "v" } param { lr_mult: 0. } }""",
        """layer { type: "BatchNorm" param { lr_mult: 0 decay_mult: 0 } param { name: "v" lr_mult: 0 decay_mult: 0 }
             param { lr_mult: 0. decay_mult: 0 } }""",
    )


@pytest.mark.parametrize("text", ['type: "BatchNorm" param { }', 'type: "Scale" param { } param { } param { }'])
def test_other_params_stay(text):
    becomes(f"layer {{ {text} }}", f"layer {{ {text} }}")


# --- positions, properties, reference data


def test_upgraded_fields_know_where_they_stood():
    net = upgrade(parse('input: "a"\ninput_dim: [1, 2, 3, 4]\nlayers {\n type: RELU\n blobs_lr: 2 }', "f"))
    inputs, relu = net.messages("layer")
    assert str(inputs.position) == "f:1:1" and str(relu.position) == "f:3:1"
    assert str(net.position_of("layer", 1)) == "f:3:1"
    assert str(relu.position_of("type")) == "f:4:2"
    assert str(relu.first("param").position_of("lr_mult")) == "f:5:2"


field_names = st.sampled_from(
    "layer layers type name bottom top param blobs_lr weight_decay pad input input_dim input_shape data_param scale "
    "transform_param blob_share_mode".split()
)
field_values = st.sampled_from(
    ["conv", "padding", "data", "BatchNorm", "x", 1, 0.5] + list(map(Identifier, ["DATA", "y"]))
)


nets = drawn_messages(field_names, field_values, leaves=10)


@pytest.mark.filterwarnings("ignore:.*means nothing in a")
@given(nets)
def test_any_net_is_upgraded_for_good_or_refused(net):
    try:
        result = upgrade(net)
    except CaffeToolsError as error:
        assert "\n" not in str(error)
    else:
        assert upgrade(result) == result
        assert "layers" not in result and "input" not in result


def test_the_nets_of_the_reference_data_come_out_in_todays_form(shared):
    for path in sorted(shared.glob("golden/*.prototxt")) + sorted(shared.glob("models/*.prototxt")):
        net = load(path)
        result = upgrade(net)
        assert not {"layers", "input", "input_dim", "input_shape"} & set(result.names()), path
        if not {"layers", "input"} & set(net.names()):
            assert result == net, path


@pytest.mark.parametrize(
    "case", ["input_fields", "v0_net", "v1_net", "v1_shared", "v1_net_ssd", "v1_shared_ssd", "v1_mix_ssd"]
)
def test_the_legacy_cases_have_the_layers_that_caffe_built(shared, case):
    name = f"legacy_{case}"
    built = json.loads((shared / "golden" / "index.json").read_text())[name]["layers"]
    layers = upgrade(load(shared / "golden" / f"{name}.prototxt")).messages("layer")
    assert layers[0].first("type") == "Input"
    assert [layer.first("type") for layer in layers[1:]] == built
