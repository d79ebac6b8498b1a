"""A blob that is there in another phase, at another level or stage alone: what to ask for is said."""

import pytest

from caffe_tools.errors import NetError
from caffe_tools.prototxt import parse
from caffe_tools.prototxt.net_spec import read_net

TEXT = """
layer {{ name: "data" type: "DummyData" top: "data" {rules} dummy_data_param {{ shape {{ dim: 1 dim: 2 }} }} }}
layer {{ name: "act" type: "ReLU" bottom: "data" top: "out" }}
"""


@pytest.mark.parametrize(
    ("rules", "state", "hint"),
    [
        ("include { phase: TRAIN }", {}, "in phase TRAIN alone: --phase TRAIN"),
        ("exclude { phase: TEST }", {}, "in phase TRAIN alone: --phase TRAIN"),
        ("include { phase: TEST }", {"phase": "TRAIN"}, "in phase TEST alone: --phase TEST"),
        ('include { stage: "deploy" }', {}, "with stage 'deploy' alone: --stage deploy"),
        ('include { stage: "a" stage: "b" }', {"stages": ["a"]}, "with stage 'b' alone: --stage b"),
        ('include { not_stage: "a" }', {"stages": ["a"]}, "without stage 'a' alone: without --stage a"),
        ('exclude { stage: "a" }', {"stages": ["a"]}, "without stage 'a' alone: without --stage a"),
        ('exclude { not_stage: "a" }', {}, "with stage 'a' alone: --stage a"),
        ("include { min_level: 2 }", {}, "at level 2 alone: --level 2"),
        ("include { max_level: 1 }", {"level": 3}, "at level 1 alone: --level 1"),
        ('include { phase: TRAIN stage: "a" }', {}, "in phase TRAIN with stage 'a' alone: --phase TRAIN --stage a"),
        ('include { phase: TRAIN } include { stage: "x" }', {}, "in phase TRAIN alone: --phase TRAIN"),
        ("include { min_level: 2 max_level: 1 }", {}, "in no phase"),
    ],
)
def test_it_is_said_what_to_ask_for(rules, state, hint):
    with pytest.raises(NetError) as raised:
        read_net(parse(TEXT.format(rules=rules), "net.prototxt"), **{"phase": "TEST", **state})
    assert str(raised.value) == (f"net.prototxt:3:1: layer 'act' (ReLU): blob 'data' is made by layer 'data' {hint}")
