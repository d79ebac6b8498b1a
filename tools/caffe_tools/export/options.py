"""What a user can ask of an export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from caffe_tools.graph.builder import OPSET


@dataclass
class ExportOptions:
    """What ``export`` writes.

    training: the losses and the diff of every learnable blob, besides the forward pass.
    input_gradients: with training, the diffs of the inputs too.
    dynamic_batch: the first dim of the inputs that share it is the symbolic dim ``batch``, and ``regions`` that of
    regions to pool, of which there may be any number in an image.
    dynamic_size: the last two dims of the first input are the symbolic dims ``height`` and ``width``.
    fold: BatchNorm and Scale vanish into the convolution or InnerProduct before them (not with training or all_blobs).
    inline: plug-in layers are plain nodes, not ONNX functions.
    blobs: inner blobs that are outputs too, behind the others.
    to: blobs that are the outputs in the place of the net's own; what they do not need is left out.
    all_blobs: every blob is an output, and with training its diff (what ``check`` compares).
    random_inputs: the random numbers of Dropout are inputs ``layer/random0``, … instead of being drawn by the graph.
    parameter_inputs: the learnable blobs are inputs ``layer/0``, … instead of being stored: what a solver changes.
    opset: the ONNX opset, from 18 to the newest that the installed ONNX Runtime takes.
    """

    training: bool = False
    input_gradients: bool = False
    dynamic_batch: bool = False
    dynamic_size: bool = False
    fold: bool = False
    inline: bool = False
    blobs: Sequence[str] = ()
    to: Sequence[str] = ()
    all_blobs: bool = False
    random_inputs: bool = False
    parameter_inputs: bool = False
    opset: int = OPSET
