"""Where an exported net ends: at its outputs, or at the blobs that are asked for."""

from __future__ import annotations

import pytest

from caffe_tools.errors import ExportError, NetError
from caffe_tools.export.export import ExportOptions, export
from exported_model import inputs_of, outputs_of
from nets import convolution, inner_product, inputs, layer, net_of

SILENT = inputs(data=(1, 1, 4, 4)) + convolution("c", "data", "ab") + layer("s", "Silence", "ab")


@pytest.mark.parametrize("training", [False, True])
def test_a_net_without_outputs_is_refused_with_the_blobs_to_ask_for(training):
    with pytest.raises(ExportError, match=r"the net has no outputs .* --to; it computes 'ab'$"):
        export(net_of(SILENT, "TEST"), ExportOptions(training=training))
    with pytest.raises(ExportError, match="no outputs"):  # what is only fed is no output either
        export(net_of(inputs(unread=(2,)) + SILENT, "TEST"))
    with pytest.raises(ExportError, match="no outputs .* it computes 'x'"):  # an input that is changed in place
        export(net_of(inputs(x=(2,)) + layer("r", "ReLU", "x", "x") + layer("s", "Silence", "x"), "TEST"))


def test_blobs_that_are_asked_for_take_the_place_of_outputs():
    assert outputs_of(export(net_of(SILENT, "TEST"), ExportOptions(to=["ab"]))) == ["ab"]
    assert outputs_of(export(net_of(SILENT, "TEST"), ExportOptions(blobs=["ab"]))) == ["ab"]


def test_a_net_that_ends_at_a_blob_has_no_layer_that_this_does_not_need():
    text = inputs(data=(1, 3), label=(1,)) + inner_product("ip", "data", "x") + layer("act", "ReLU", "x", "x")
    text += layer("cut", "Slice", "x", "a b c") + layer("new", "NobodyKnows", "b label", "end")
    net = net_of(text, "TEST", to=["a"])
    assert [placed.name for placed in net.placed] == ["data", "ip", "act", "cut"]
    exported = export(net, ExportOptions(to=["a"]))
    assert (inputs_of(exported), outputs_of(exported)) == (["data"], ["a"])
    trained = export(net_of(text, "TRAIN", to=["x"]), ExportOptions(to=["x"], training=True))
    assert outputs_of(trained)[0] == "x" and inputs_of(trained) == ["data", "x.diff"]
    with pytest.raises(NetError, match="no blob 'xx': did you mean 'x'"):
        net_of(text, "TEST", to=["xx"])
