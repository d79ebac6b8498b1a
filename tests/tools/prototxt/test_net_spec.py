"""Which layers of a prototxt make up one phase of a net, and how they connect."""

from __future__ import annotations

import pytest

from caffe_tools.errors import CaffeToolsError, NetError
from caffe_tools.prototxt.net_spec import read_net
from caffe_tools.prototxt.text import parse
from nets import layer

DATA = 'layer { name: "data" type: "Input" top: "x" top: "y" input_param { shape { dim: 2 } } }\n'


def spec(text, phase="TEST", **state):
    return read_net(parse(text, "net.prototxt"), phase, **state)


def names(text, phase="TEST", **state):
    return [layer.name for layer in spec(text, phase, **state).layers]


def error_of(text, phase="TEST", **state):
    with pytest.raises(NetError) as raised:
        spec(text, phase, **state)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def relu(name, bottom="", top="", more=""):
    return layer(name, "ReLU", bottom, top, more)


# --- rules: two layers, of which "ruled" takes part or not


def takes_part(rules, phase="TEST", **state):
    return "ruled" in names(DATA + relu("ruled", "x", "z", rules), phase, **state)


@pytest.mark.parametrize(("rule", "train", "test"), [("include", 1, 0), ("exclude", 0, 1)])
def test_a_rule_may_ask_for_a_phase(rule, train, test):
    rules = f"{rule} {{ phase: TRAIN }}"
    assert (takes_part(rules, "TRAIN"), takes_part(rules, "TEST")) == (train, test)


@pytest.mark.parametrize(
    ("rules", "levels"),
    [
        ("include { min_level: 2 }", {2, 3}),
        ("include { max_level: 1 }", {0, 1}),
        ("include { min_level: 1 max_level: 2 }", {1, 2}),
        ("exclude { min_level: 1 max_level: 2 }", {0, 3}),
    ],
)
def test_a_rule_may_ask_for_levels(rules, levels):
    assert {level for level in range(4) if takes_part(rules, level=level)} == levels


def test_a_rule_may_ask_for_stages_and_all_of_them_must_be_there():
    rules = 'include { stage: "deploy" stage: "fast" }'
    assert takes_part(rules, stages=["fast", "deploy", "more"])
    assert not takes_part(rules, stages=["deploy"])


def test_a_rule_may_ask_for_the_absence_of_stages_and_none_may_be_there():
    rules = 'include { not_stage: "deploy" not_stage: "fast" }'
    assert takes_part(rules, stages=["more"])
    assert not takes_part(rules, stages=["fast"])


def test_every_part_of_a_rule_must_be_met():
    rules = 'include { phase: TRAIN stage: "deploy" }'
    assert takes_part(rules, "TRAIN", stages=["deploy"])
    assert not takes_part(rules, "TRAIN") and not takes_part(rules, "TEST", stages=["deploy"])


def test_one_of_several_include_rules_is_enough():
    rules = 'include { phase: TRAIN } include { stage: "deploy" }'
    assert takes_part(rules, "TRAIN") and takes_part(rules, stages=["deploy"]) and not takes_part(rules)


def test_one_of_several_exclude_rules_is_enough():
    rules = 'exclude { phase: TRAIN } exclude { stage: "deploy" }'
    assert takes_part(rules) and not takes_part(rules, "TRAIN") and not takes_part(rules, stages=["deploy"])


def test_include_and_exclude_together_are_an_error():
    text = DATA + relu("ruled", "x", "z", "include { phase: TRAIN } exclude { phase: TEST }")
    assert error_of(text) == (
        "net.prototxt:2:1: layer 'ruled' (ReLU): it has both include and exclude rules: Caffe takes one kind"
    )


def test_a_field_that_rules_have_not_is_an_error():
    assert "has no field 'stages': did you mean 'stage'?" in error_of(relu("a", more='include { stages: "deploy" }'))


def test_where_no_phase_is_asked_for_the_prototxts_own_state_counts():
    text = 'state { phase: TRAIN level: 2 stage: "s" } ' + DATA
    ruled = 'include { phase: TRAIN min_level: 2 stage: "s" }'
    assert "ruled" in names(text + relu("ruled", "x", "z", ruled), phase=None)


def test_where_nothing_tells_the_phase_it_is_test():
    assert spec(DATA, phase=None).phase == "TEST"


def test_the_stages_of_the_prototxts_own_state_count_besides_those_asked_for():
    text = 'state { stage: "own" } ' + DATA + relu("ruled", "x", "z", 'include { stage: "own" stage: "asked" }')
    assert "ruled" in names(text, stages=["asked"])


def test_a_layer_without_a_phase_of_its_own_has_the_nets():
    first, second = spec(DATA + relu("a", "x", "z", "phase: TEST"), "TRAIN").layers
    assert (first.phase, second.phase) == ("TRAIN", "TEST")


def test_an_unknown_phase_is_an_error():
    assert error_of(DATA, phase="DEPLOY") == "phase 'DEPLOY' is none of TRAIN, TEST"


def test_a_net_without_layers_in_the_phase_is_an_error():
    message = error_of(relu("a", more="include { phase: TRAIN }"))
    assert message == (
        "the net has no layer in phase TEST: layer 'a' (ReLU) is there in phase TRAIN alone: --phase TRAIN"
    )


def test_a_net_without_layers_at_these_stages_is_an_error_that_names_them():
    message = error_of(relu("a", more='include { stage: "b" }'), stages=["a"])
    assert message.startswith("the net has no layer in phase TEST with stages ['a']: layer 'a' (ReLU) is there with")


# --- names and connections


def test_a_layer_without_a_type_is_an_error_with_its_place():
    assert error_of(DATA + 'layer { name: "a" }') == "net.prototxt:2:1: layer 'a' (): it has no type: give type: \"…\""


def test_a_layer_that_is_no_message_is_an_error():
    with pytest.raises(CaffeToolsError, match=r"net.prototxt:1:1: expected 'layer \{ ... \}', found 3"):
        spec("layer: 3")


def test_two_layers_of_one_name_are_an_error():
    assert "net.prototxt:3:1: layer 'a' (ReLU): another layer of this phase has the same name" in error_of(
        DATA + relu("a", "x", "p") + relu("a", "y", "q")
    )


def test_two_layers_of_one_name_in_different_phases_are_fine():
    text = DATA + relu("a", "x", "p", "include { phase: TRAIN }") + relu("a", "y", "q", "include { phase: TEST }")
    assert names(text) == ["data", "a"]


def test_an_unknown_bottom_is_an_error():
    assert error_of(DATA + relu("a", "q", "z")) == (
        "net.prototxt:2:1: layer 'a' (ReLU): unknown bottom blob 'q': no layer of this phase makes it"
    )


def test_a_bottom_that_a_later_layer_makes_is_an_error_that_says_so():
    message = error_of(DATA + relu("a", "q", "z") + relu("b", "x", "q"))
    assert "unknown bottom blob 'q': it is a top of the later layer 'b'" in message


def test_a_top_that_is_there_already_is_an_error():
    assert error_of(DATA + relu("a", "x", "y")) == (
        "net.prototxt:2:1: layer 'a' (ReLU): top blob 'y' is already made by layer 'data'"
    )


def test_a_layer_may_work_in_place():
    assert names(DATA + relu("a", "x", "x")) == ["data", "a"]


def test_in_place_means_the_bottom_of_the_same_place():
    message = error_of(DATA + layer("a", "Python", "x y", "y x"))
    assert "top blob 'y' is already made by layer 'data'" in message


def test_a_layer_reads_what_the_last_layer_in_place_left():
    layers = spec(DATA + relu("a", "x", "x") + relu("b", "x", "z")).layers
    assert [one.bottoms for one in layers] == [[], ["x"], ["x"]]


def test_working_in_place_on_a_blob_that_a_layer_before_reads_is_an_error():
    message = error_of(DATA + relu("a", "x", "z") + relu("b", "x", "x"))
    assert message.startswith("net.prototxt:3:1: layer 'b' (ReLU): it works in place on blob 'x', which something else")


def test_propagate_down_is_given_for_each_bottom_or_not_at_all():
    (_, one) = spec(DATA + relu("a", "x y", "z", "propagate_down: [true, false]")).layers
    assert one.propagate_down == [True, False]
    message = error_of(DATA + relu("a", "x y", "z", "propagate_down: false"))
    assert "propagate_down is given 1 times for 2 bottoms: give it once for each, or not at all" in message


def test_a_field_of_another_type_is_an_error_with_its_place():
    message = error_of(DATA + 'layer { name: "a" type: "ReLU"\n bottom: x }')
    assert message == "net.prototxt:3:2: layer 'a' (ReLU): bottom is 'x', but takes a value of type string"


def test_fields_of_forks_are_kept_in_the_layers_message():
    (_, one) = spec(DATA + relu("a", "x", "z", "fork_param { depth: 3 }")).layers
    assert one.message.messages("fork_param")[0].first("depth") == 3


def test_what_a_layer_says_of_its_learnable_blobs_is_read():
    rest = 'param { name: "w" lr_mult: 2 share_mode: PERMISSIVE } param { decay_mult: 0 }'
    one = spec(DATA + relu("a", "x", "z", rest)).layers[1]
    assert [(p.name, p.share_mode, p.lr_mult, p.decay_mult) for p in one.params] == [
        ("w", "PERMISSIVE", 2, 1),
        ("", "STRICT", 1, 0),
    ]
    assert one.param(5).lr_mult == 1


# --- Split layers


def test_a_blob_that_several_layers_read_passes_through_a_split_named_as_in_caffe():
    layers = spec(DATA + relu("a", "y", "p") + relu("b", "y", "q")).layers
    assert [one.name for one in layers] == ["data", "y_data_1_split", "a", "b"]
    split = layers[1]
    assert (split.type, split.bottoms, split.tops) == ("Split", ["y"], ["y_data_1_split_0", "y_data_1_split_1"])
    assert [layers[2].bottoms, layers[3].bottoms] == [["y_data_1_split_0"], ["y_data_1_split_1"]]


def test_a_layer_that_reads_a_blob_twice_reads_two_of_a_splits_tops():
    layers = spec(DATA + layer("a", "Eltwise", "x x", "p")).layers
    assert layers[2].bottoms == ["x_data_0_split_0", "x_data_0_split_1"]


def test_the_blob_that_a_layer_left_in_place_is_split_behind_that_layer():
    layers = spec(DATA + relu("a", "x", "x") + relu("b", "x", "p") + relu("c", "x", "q")).layers
    assert [one.name for one in layers] == ["data", "a", "x_a_0_split", "b", "c"]


def test_a_top_with_a_loss_weight_that_a_layer_reads_gives_the_loss_the_first_top_of_a_split():
    layers = spec(DATA + relu("a", "x", "p", "loss_weight: 3") + relu("b", "p", "q")).layers
    split = layers[2]
    assert (split.name, split.loss_weights) == ("p_a_0_split", [3, 0])
    assert layers[1].loss_weights == [0] and layers[3].bottoms == ["p_a_0_split_1"]


def test_a_top_with_a_loss_weight_that_nobody_reads_is_not_split():
    layers = spec(DATA + relu("a", "x", "p", "loss_weight: 3")).layers
    assert [one.name for one in layers] == ["data", "a"] and layers[1].loss_weights == [3]


def test_nets_of_old_formats_are_read_too():
    text = 'input: "x" input_dim: [1, 2, 3, 4] layers { name: "a" type: RELU bottom: "x" top: "z" }'
    assert [(one.name, one.type) for one in spec(text).layers] == [("input", "Input"), ("a", "ReLU")]
