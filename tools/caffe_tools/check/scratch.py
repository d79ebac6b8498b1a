"""Diffs in which Caffe's layers compute without being asked for a gradient: what a run leaves there says nothing."""

from __future__ import annotations

from caffe_tools.net.net import Net

SCRATCH = {
    "Scale": (0,),  # scale_layer.cpp, Backward: the product of which the gradient by the scale is summed
    "HingeLoss": (0,),  # hinge_loss_layer.cpp, Forward: the margins
    "BatchNorm": (0,),  # batch_norm_layer.cpp, Backward asks no propagate_down; nor do MVN and Softmax
    "MVN": (0,),
    "Softmax": (0,),
    "SoftmaxWithLoss": (0,),  # softmax_loss_layer.cu, Forward on a GPU: the losses of all positions
    "SigmoidCrossEntropyLoss": (0, 1),  # sigmoid_cross_entropy_loss_layer.cu: the losses, and which ones count
    "Accuracy": (0, 1),  # accuracy_layer.cu: the hits, and which ones count
}
"""Layer type → the bottoms in whose diffs it computes."""


def scratch_diffs(net: Net) -> set[str]:
    """The blobs whose diffs hold such numbers: no layer sends them a gradient, and one of these computes there."""
    used: set[str] = set()
    asked: set[str] = set()
    for placed in net.placed:
        for index, name in enumerate(placed.spec.bottoms):
            if placed.runs_backward and placed.propagate_down[index]:
                asked.add(name)
            elif index in SCRATCH.get(placed.spec.type, ()):
                used.add(name)
    return used - asked
