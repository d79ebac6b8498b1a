"""Depthwise convolution as the MobileNet forks spell it: DepthwiseConvolution and ConvolutionDepthwise.

Source: yonghenglh6/DepthwiseConvolution caffe/src/caffe/layers/depthwise_conv_layer.cpp; farmingyard/caffe-mobilenet
src/caffe/layers/conv_dw_layer.cpp.
"""

from __future__ import annotations

from caffe_tools.graph import ir
from caffe_tools.graph.builder import Builder
from caffe_tools.standard.layer import Layer
from caffe_tools.standard.linear.convolution import CONVOLUTION_PARAM, check_reach, convolution, keep_dims, window_of
from caffe_tools.standard.registry import layer_type


@layer_type("DepthwiseConvolution", bottoms=(1, None), tops=(1, None), convolution_param=CONVOLUTION_PARAM)
def depthwise_convolution(op: Builder, layer: Layer, *bottoms: ir.Value) -> tuple[ir.Value, ...]:
    """A Convolution with as many groups as ``group`` says: the type has GPU code of its own, and the same numbers."""
    return convolution(op, layer, *bottoms)


@layer_type("ConvolutionDepthwise", convolution_param=CONVOLUTION_PARAM)
def convolution_depthwise(op: Builder, layer: Layer, x: ir.Value) -> ir.Value:
    """Each channel convolved with a kernel of its own (channels × 1 × kernel), whatever ``group`` says, plus a bias."""
    p, window = layer.convolution_param, window_of(op, layer, (x,))
    channels = op.shape(x)[1]
    if window.axis != 1 or len(window.kernel) != 2:
        raise layer.error("it takes images × channels × height × width")
    if p.num_output not in (None, channels):
        raise layer.error(f"num_output {p.num_output} must be the number of the bottom's channels, {channels}")
    check_reach(layer, window, op.shape(x))
    weight, bias = layer.weight_and_bias(p, (channels, 1, *window.kernel), channels)
    return keep_dims(op, x, op.Conv(x, weight, bias, **window.attributes, group=channels), window)
