"""Labels that ``check`` draws are valid for every layer that reads them: its type says which are."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools import standard
from caffe_tools.check.check import check
from caffe_tools.net.draw import draw_inputs
from caffe_tools.standard.registry import CLASS_INDEX
from nets import inputs, layer, net_of

SCORES = {"x": (40, 3), "label": (40,)}
SAMPLES = {
    "Accuracy": (SCORES, ""),
    "BatchReindex": ({"x": (3, 7), "label": (40,)}, ""),
    "Embed": ({"label": (40, 5)}, "embed_param { input_dim: 3 num_output: 2 }"),
    "HingeLoss": (SCORES, ""),
    "InfogainLoss": ({**SCORES, "gain": (3, 3)}, ""),
    "MultinomialLogisticLoss": (SCORES, ""),
    "SoftmaxWithLoss": (SCORES, ""),
}
"""For every type that takes class indices: its bottoms' shapes, of which ``label`` holds them, and its parameters.
Valid are 0, 1 and 2."""
TYPES = sorted(name for name, kind in standard.TYPES.items() if CLASS_INDEX in kind.labels.values())


def drawn(shapes, layers, seed=0):
    net = net_of("force_backward: true\n" + inputs(**shapes) + layers, seed=seed)
    draw_inputs(net, (), seed)
    return net


@pytest.mark.parametrize("type_", TYPES)
def test_check_draws_all_labels_of_the_type_and_no_other(type_):
    assert type_ in SAMPLES, f"{type_} takes class indices: give it a sample net"
    shapes, rest = SAMPLES[type_]
    net = drawn(shapes, layer("it", type_, " ".join(shapes), "top", rest))
    assert set(np.unique(net.blobs["label"].data)) == {0, 1, 2}
    assert all(result.agrees for result in check(net))


@pytest.mark.parametrize("order", [1, -1])
def test_labels_of_one_blob_are_valid_for_all_layers_that_read_it(order):
    shapes = {"few": (40, 2), "many": (40, 9), "label": (40,)}
    readers = [
        layer("many_classes", "SoftmaxWithLoss", "many label", "loss"),
        layer("few_classes", "Accuracy", "few label", "accuracy"),
        layer("embed", "Embed", "label", "vector", "embed_param { input_dim: 4 num_output: 2 }"),
    ][::order]
    net = drawn(shapes, "".join(readers))
    net.forward()
    assert set(np.unique(net.blobs["label"].data)) == {0, 1}


def test_an_index_that_is_also_read_as_0_or_1_is_0_or_1():
    shapes = {"x": (40, 5), "one": (40, 2), "other": (40, 2), "label": (40,)}
    net = drawn(
        shapes,
        layer("classes", "SoftmaxWithLoss", "x label", "loss")
        + layer("pairs", "ContrastiveLoss", "one other label", "pair_loss"),
    )
    assert set(np.unique(net.blobs["label"].data)) == {0, 1}
