"""Fields that a prototxt may give though nothing here reads them: which, and why that changes no number.

Whatever is neither read nor listed here is refused, as Caffe's own parser refuses what its caffe.proto does not know.

Source: the caffe.proto of BVLC's Caffe, of the SSD fork, and of NVIDIA's, Intel's, OpenCL's and yjxiong's forks.
"""

from __future__ import annotations

_MESSAGES = """
    transform loss accuracy argmax batch_norm bias clip concat contrastive_loss convolution crop data dropout dummy_data
    eltwise elu embed exp flatten hdf5_data hdf5_output hinge_loss image_data infogain_loss inner_product input log lrn
    memory_data mvn parameter pooling power prelu python recurrent reduction relu reshape scale sigmoid softmax spp
    slice swish tanh threshold tile window_data
    annotated_data detection_evaluate detection_output multibox_loss norm permute prior_box video_data
"""
CAFFE_MESSAGES = frozenset(f"{name}_param" for name in _MESSAGES.split())
"""The messages of BVLC's and the SSD fork's LayerParameter: a type does not look at those of other types."""

_WHERE = "it says where and how a fork computes"
_TOLD = "it says what Caffe prints"
_QUANTIZED = "it is of a fork that computes with few bits; here all is float32"

LAYER_FIELDS = {
    **dict.fromkeys(("forward_type", "backward_type", "forward_math", "backward_math", "cudnn_math_override"), _WHERE),
    **dict.fromkeys(("engine", "device", "buffer", "disabled_update", "need_sync"), _WHERE),
    "debug": _TOLD,
    "debug_info": _TOLD,
    **dict.fromkeys(("quantization_param", "quantize_param", "precision_param"), _QUANTIZED),
    "detectnet_groundtruth_param": "it says how data is made, which is fed here",
    "detectnet_augmentation_param": "it says how data is made, which is fed here",
    "visualize_param": "it says what Caffe draws",
}
"""A layer's fields → why they change nothing here."""

NET_FIELDS = {
    "debug_info": _TOLD,
    **dict.fromkeys(
        ("engine", "multinode", "compile_net_state", "mem_param", "optimize_mem", "reduce_buckets"), _WHERE
    ),
    **dict.fromkeys(("default_forward_type", "default_backward_type", "default_forward_math"), _WHERE),
    **dict.fromkeys(("default_backward_math", "default_cudnn_math_override", "default_conv_algos_override"), _WHERE),
    **dict.fromkeys(("global_grad_scale", "global_grad_scale_adaptive"), "it keeps half precision in range"),
    "bn_stats_batch_size": "it splits a batch between a fork's machines",
    "default_quantization_param": _QUANTIZED,
}
"""A net's fields → why they change nothing here."""

OTHER_MEANING = {
    "blobs": "weights in a prototxt are not read: write them to a .caffemodel",
    "blobs_lr": "of the old 'layers': write param { lr_mult: … }",
    "weight_decay": "of the old 'layers': write param { decay_mult: … }",
    "blob_share_mode": "of the old 'layers': write param { share_mode: … }",
    "normalize_param": "of a fork whose Normalize has no scale; the one that is covered is SSD's, with norm_param",
}
"""Fields that something would depend on → what to do about them."""
