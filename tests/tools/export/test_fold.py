"""BatchNorm and Scale folded into the layer before them: fewer nodes, the same numbers."""

import numpy as np
import onnxruntime
import pytest

from caffe_tools.errors import ExportError
from caffe_tools.export.export import ExportOptions, export
from nets import drawn_net, inner_product, inputs, layer

NORMALIZED = layer("bn", "BatchNorm", "conv", "conv") + layer(
    "scale", "Scale", "conv", "conv", "scale_param { bias_term: true }"
)


def convolution(more=""):
    param = f'num_output: 4 kernel_size: 3 group: 2 weight_filler {{ type: "xavier" }} {more}'
    return inputs(data=(2, 4, 6, 6)) + layer("conv", "Convolution", "data", "conv", f"convolution_param {{ {param} }}")


def randomized(net):
    """The net with learnable blobs and statistics that are not those of its fillers."""
    random = np.random.default_rng(0)
    for name, blobs in net.params.items():
        for blob in blobs:
            blob.data[...] = random.uniform(0.5, 2, blob.shape) if name in ("bn", "scale") else blob.data
    return net


def run(net, **options):
    exported = export(net, ExportOptions(**options))
    session = onnxruntime.InferenceSession(exported.model.SerializeToString())
    results = session.run(None, {name: net.blobs[name].data for name in net.inputs})
    return dict(zip([value.name for value in session.get_outputs()], results, strict=True)), exported.model


def check_folds(text, vanished=("BatchNormalization",)):
    net = randomized(drawn_net(text, "TEST"))
    net.blobs["data"].data[...] = np.random.default_rng(1).normal(size=net.blobs["data"].shape)
    plain, _ = run(net)
    folded, model = run(net, fold=True)
    assert not set(vanished) & {node.op_type for node in model.graph.node}
    assert folded.keys() == plain.keys()
    for name, expected in plain.items():
        np.testing.assert_allclose(folded[name], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    return model


@pytest.mark.parametrize("bias", ["bias_term: false", "bias_filler { value: 0.3 }"])
def test_batch_norm_and_scale_fold_into_a_convolution(bias):
    text = convolution(bias) + NORMALIZED
    model = check_folds(text, ("BatchNormalization", "Mul", "Add"))
    assert [node.op_type for node in model.graph.node] == ["Conv"]


def test_they_fold_when_each_has_a_blob_of_its_own():
    text = convolution() + layer("bn", "BatchNorm", "conv", "normal") + layer("scale", "Scale", "normal", "scaled")
    model = check_folds(text)
    assert [value.name for value in model.graph.output] == ["scaled"]


def test_they_fold_into_an_inner_product():
    text = inputs(data=(3, 5)) + inner_product("ip", "data", "conv") + NORMALIZED
    check_folds(text)


def test_a_blob_that_another_layer_reads_is_kept():
    text = convolution() + layer("bn", "BatchNorm", "conv", "normal") + layer("relu", "ReLU", "conv", "other")
    check_folds(text, vanished=())


def test_batch_norm_on_the_batchs_statistics_is_kept():
    text = layer("bn", "BatchNorm", "conv", "conv", "batch_norm_param { use_global_stats: false }")
    check_folds(convolution() + text, vanished=())


def test_folding_goes_with_inference_alone():
    net = drawn_net(convolution())
    with pytest.raises(ExportError, match="fold goes with inference"):
        export(net, ExportOptions(fold=True, training=True))
