"""What the sum of a loss is divided by: Caffe's modes, and two that detection and weighted means need.

============  =====================================================================================================
mode          the divisor
============  =====================================================================================================
FULL          all positions (softmax-type losses) or all elements (sigmoid-type), ignored ones too
VALID         those that are not ignored
BATCH_SIZE    softmax-type: the product of the dims before ``axis``; sigmoid-type: the first dim
NONE          1
POSITIVES     the foreground: positions (index and distribution targets) or elements (multi-label targets)
WEIGHT        the sum of position weight x class weight x target (before smoothing) over what is not ignored
============  =====================================================================================================

Each but WEIGHT is at least 1, as in Caffe, so that a batch in which everything is ignored gives 0. WEIGHT is the
divisor of a weighted mean and can be small: only a divisor of exactly 0 is special, and gives loss 0 and gradient 0.

Source: Caffe src/caffe/layers/softmax_loss_layer.cpp and sigmoid_cross_entropy_loss_layer.cpp (``get_normalizer``);
POSITIVES: Lin et al., Focal Loss for Dense Object Detection, section 4.1; WEIGHT: torch.nn.CrossEntropyLoss.
"""

from __future__ import annotations

from caffe_layers.params import BOOLEAN, Parameter, choice, or_null

MODES = ("FULL", "VALID", "BATCH_SIZE", "NONE", "POSITIVES", "WEIGHT")


def parameters(default):
    """The two parameters that choose the mode; ``default`` is the mode where neither is given."""
    old_form = "Caffe's old form: true is VALID, false BATCH_SIZE; normalization beats it"
    return (
        Parameter("normalization", or_null(choice(*MODES)), None, f"what the sum is divided by; null: {default}"),
        Parameter("normalize", or_null(BOOLEAN), None, old_form),
    )


def mode(params, default):
    """The mode that the parameters choose."""
    if params["normalization"] is not None:
        return params["normalization"]
    if params["normalize"] is not None:
        return "VALID" if params["normalize"] else "BATCH_SIZE"
    return default


def factor(mode, count):
    """1 / divisor, where ``count`` is what the mode counts (any number for NONE)."""
    if mode == "NONE":
        return 1.0
    if mode == "WEIGHT":
        return 1.0 / count if count > 0 else 0.0
    return 1.0 / max(1, count)


def onnx_factor(op, mode, count):
    """The same as a scalar of the ONNX graph."""
    if mode == "NONE":
        return 1.0
    if mode == "WEIGHT":
        empty = op.Equal(count, 0)
        return op.Where(empty, 0, op.Reciprocal(op.Where(empty, 1, count)))
    return op.Reciprocal(op.Max(count, 1))
