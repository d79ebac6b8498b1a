"""param_str: what may be written, and what the error says of anything else."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import caffe_layers
from caffe_layers import ParameterError, params
from caffe_layers.params import ValueRefused, parse
from caffe_tools.net.python_layer import make_instance


@pytest.mark.parametrize(
    "text",
    [
        '{"axis": 1, "normalization": "VALID", "alpha": [0.5, 2], "ignore_label": null, "normalize": true}',
        "{'axis': 1, 'normalization': 'VALID', 'alpha': [0.5, 2], 'ignore_label': None, 'normalize': True}",
        "'axis': 1, 'normalization': 'VALID', 'alpha': (.5, 2,), 'ignore_label': None, 'normalize': True,",
        "axis: 1, normalization: VALID, alpha: [0.5, 2], ignore_label: ~, normalize: true",
        "axis:1,normalization:VALID,alpha:[0.5,2],ignore_label:null,normalize:TRUE",
        "axis: 1\nnormalization: VALID  # as Caffe\n\nalpha: [0.5,\n  2]\nignore_label: null\nnormalize: true\n",
        "{\n  axis: 1,\n  'normalization': VALID, alpha: [5e-1, +2]\n  , ignore_label: null, normalize: true\n}\n",
    ],
)
def test_json_python_and_yaml_say_the_same(text):
    expected = {"axis": 1, "normalization": "VALID", "alpha": [0.5, 2], "ignore_label": None, "normalize": True}
    assert parse(text) == expected
    assert list(parse(text)) == list(expected)


@pytest.mark.parametrize("text", ["", "  \n", "{}", "{ }\n", "# nothing"])
def test_nothing_is_the_defaults(text):
    assert parse(text) == {}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text(), VALUES))
def test_whatever_json_or_python_writes_is_read_back(mapping):
    assert parse(json.dumps(mapping)) == mapping
    assert parse(repr(mapping)) == mapping
    assert parse(repr(mapping)[1:-1]) == mapping


@given(st.text(alphabet="{}[](),:'\"# \n\\ab1.-~"))
def test_any_text_gives_a_mapping_or_the_one_error(text):
    try:
        assert isinstance(parse(text), dict)
    except ValueRefused as refused:
        assert "\n" not in str(refused)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axis", "character 5: found the end where a colon after 'axis' is wanted"),
        ("axis: ", "character 7: found the end where a value is wanted"),
        ("axis:\ngamma: 2", "character 6: found the end of the line where a value is wanted"),
        ("{'axis': 1", "found the end where a comma is wanted"),
        ("{'axis' 1}", "character 9: found '1' where a colon after 'axis' is wanted"),
        ("axis: [1, 2", "found the end where a comma or ']' is wanted"),
        ("axis: 1}", "character 8: found '}' where a comma or a new line is wanted"),
        ("{axis: 1} gamma: 2", "character 11: found 'gamma' where the end is wanted"),
        ("axis: 'one", 'character 7: "\'" does not belong here (an open quote?)'),
        ("axis: 1, axis: 2", "character 10: parameter 'axis' is given twice"),
        ("axis: 1\n'axis': 1", "parameter 'axis' is given twice"),
        ("[1, 2]", "character 1: found '[' where a parameter's name is wanted"),
        ("__import__('os')", "character 11: found '(' where a colon"),
    ],
)
def test_text_that_is_no_mapping_is_an_error_with_the_place(text, message):
    with pytest.raises(ValueRefused) as error:
        parse(text)
    assert message in str(error.value)


def _read(text, layer=caffe_layers.SigmoidFocalLossLayer):
    layer = make_instance(layer, text, "TRAIN")
    layer.setup([None, None], [None])
    return layer.params


def test_the_effective_values_are_the_given_ones_and_the_defaults():
    given_params = _read("gamma: 3, alpha: [1, 2]")
    assert given_params["gamma"] == 3.0 and given_params["alpha"] == [1.0, 2.0]
    assert given_params["axis"] == 1 and given_params["target"] == "multi_label"
    assert list(given_params) == [parameter.name for parameter in caffe_layers.SigmoidFocalLossLayer.parameters]


def test_an_unknown_parameter_is_an_error_that_lists_the_valid_ones():
    with pytest.raises(ParameterError) as error:
        _read("gama: 2")
    message = str(error.value)
    assert message.startswith("SigmoidFocalLossLayer: unknown parameter 'gama', did you mean 'gamma'?")
    assert all(parameter.name in message for parameter in caffe_layers.SigmoidFocalLossLayer.parameters)


@pytest.mark.parametrize(
    "text",
    [
        "axis: 1.0",
        "axis: true",
        "axis: one",
        "axis: null",
        "axis: [1]",
        "gamma: -1",
        "gamma: nan",
        "gamma: inf",
        "gamma: true",
        "gamma: '2'",
        "gamma: null",
        "gamma: 1e999",
        "alpha: 1.5",
        "alpha: -0.1",
        "alpha: []",
        "alpha: [1, -1]",
        "alpha: [nan]",
        "alpha: {a: 1}",
        "alpha: [[1]]",
        "class_weight: 2",
        "class_weight: []",
        "class_weight: [1, true]",
        "pos_weight: -1",
        "pos_weight: [inf]",
        "label_smoothing: 1",
        "label_smoothing: -0.1",
        "ignore_label: 0.5",
        "ignore_label: true",
        "normalization: valid",
        "normalization: 1",
        "normalization: [FULL]",
        "normalize: 1",
        "normalize: VALID",
        "target: distribution",
        "target: null",
        "background_label: -1",
        "background_label: 1.5",
    ],
)
def test_a_value_of_the_wrong_kind_is_an_error_that_says_what_would_be_right(text):
    name = text.split(":")[0]
    kind = next(p.kind for p in caffe_layers.SigmoidFocalLossLayer.parameters if p.name == name)
    with pytest.raises(ParameterError) as error:
        _read(text)
    assert str(error.value).startswith(f"SigmoidFocalLossLayer: parameter '{name}' is ")
    assert str(error.value).endswith(f", but must be {kind}")


def test_a_parameter_of_another_layer_is_unknown():
    for layer, text in [
        ("SoftmaxLossLayer", "gamma: 2"),
        ("SoftmaxFocalLossLayer", "target: index"),
        ("SigmoidLayer", "axis: 1"),
    ]:
        with pytest.raises(ParameterError, match=f"^{layer}: unknown parameter"):
            _read(text, getattr(caffe_layers, layer))


@pytest.mark.parametrize("layer", caffe_layers.LAYERS, ids=lambda layer: layer.__name__)
def test_every_parameter_says_its_kind_in_words_and_what_it_does_in_a_line(layer):
    names = [parameter.name for parameter in layer.parameters]
    assert len(set(names)) == len(names)
    for parameter in layer.parameters:
        assert parameter.kind and parameter.doc and "\n" not in parameter.doc
        if layer is not caffe_layers.NpzDataLayer:
            assert parameter.accept(parameter.default) == parameter.default


def test_words_of_nan_and_infinity_are_read_as_such_so_that_they_can_be_refused():
    assert math.isnan(params.parse("a: NaN")["a"])
    assert params.parse("a: [.inf, -Infinity]")["a"] == [math.inf, -math.inf]
