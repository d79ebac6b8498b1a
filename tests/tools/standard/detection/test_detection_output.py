"""DetectionOutput: the rows that Caffe-SSD lists, in its order (its own numbers are among the golden layers)."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import box_oracle
from caffe_tools.errors import NetError
from caffe_tools.export.export import ExportOptions, export
from detections import bottoms_of, parameters
from nets import inputs, layer, net_of
from one_layer import diffs_of, exported_tops, net_over, top_of


def caffe_rows(
    bottoms: dict[str, np.ndarray],
    classes: int,
    shared: bool = True,
    background: int = 0,
    code_type: str = "CORNER",
    in_target: bool = False,
    threshold: float = 0.3,
    top_k: int = -1,
    eta: float = 1.0,
    keep: int = -1,
    least: float = -np.inf,
) -> np.ndarray:
    """Caffe's algorithm, image by image and class by class."""
    priors, variances = bottoms["priors"].reshape(2, -1, 4)
    if in_target:
        variances = np.ones_like(variances)
    count, rows = len(priors), []
    for image, (code, scores) in enumerate(zip(bottoms["code"], bottoms["scores"], strict=True)):
        codes, scores = code.reshape(count, -1, 4), scores.reshape(count, classes)
        found = []
        for label in range(classes):
            if label == background:
                continue
            boxes = box_oracle.decode(code_type, codes[:, 0 if shared else label], priors, variances)
            kept = box_oracle.suppress(boxes, scores[:, label], threshold, top_k, least, eta)
            found += [(scores[k, label], label, boxes[k]) for k in kept]
        if -1 < keep < len(found):
            found = sorted(sorted(found, key=lambda row: -row[0])[:keep], key=lambda row: row[1])
        rows += [np.r_[image, label, score, box] for score, label, box in found]
    if not rows:
        rows = [np.r_[image, [-1] * 6] for image in range(len(bottoms["code"]))]
    return np.asarray(rows, np.float32)[None, None]


def assert_rows(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(found[..., :3], wanted[..., :3])
    np.testing.assert_allclose(found[..., 3:], wanted[..., 3:], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("code_type", ["CORNER", "CENTER_SIZE", "CORNER_SIZE"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("in_target", [True, False])
def test_boxes_are_decoded_as_the_code_type_says(code_type, shared, in_target):
    bottoms = bottoms_of(2, 20, 3, shared)
    found = top_of(
        "DetectionOutput",
        bottoms,
        parameters(
            3,
            "",
            f"code_type: {code_type} share_location: {str(shared).lower()}"
            f" variance_encoded_in_target: {str(in_target).lower()}",
        ),
    )
    assert_rows(found, caffe_rows(bottoms, 3, shared, code_type=code_type, in_target=in_target))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    threshold=st.sampled_from([0.0, 0.1, 0.45, 0.7]),
    top_k=st.sampled_from([-1, 0, 1, 7, 100]),
    keep=st.sampled_from([-1, 0, 1, 5, 200]),
    least=st.sampled_from([None, 0.01, 0.3, 0.9]),
    background=st.sampled_from([0, 1, 7]),
)
def test_rows_are_those_of_caffe_in_its_order(seed, threshold, top_k, keep, least, background):
    bottoms = bottoms_of(2, 25, 3, seed=seed)
    rest = f"keep_top_k: {keep} background_label_id: {background} code_type: CENTER_SIZE"
    if least is not None:
        rest += f" confidence_threshold: {least}"
    found = top_of("DetectionOutput", bottoms, parameters(3, f"nms_threshold: {threshold} top_k: {top_k}", rest))
    wanted = caffe_rows(
        bottoms,
        3,
        background=background,
        code_type="CENTER_SIZE",
        threshold=threshold,
        top_k=top_k,
        keep=keep,
        least=-np.inf if least is None else least,
    )
    assert_rows(found, wanted)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("eta", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("seed", range(3))
def test_eta_lowers_the_threshold_with_every_box_kept_down_to_a_half(shared, eta, seed):
    bottoms = bottoms_of(2, 60, 3, shared, seed)
    bottoms["code"] *= 0.3  # so that boxes overlap
    rest = f"code_type: CENTER_SIZE share_location: {str(shared).lower()} confidence_threshold: 0.1"
    found = top_of("DetectionOutput", bottoms, parameters(3, f"nms_threshold: 0.9 top_k: 50 eta: {eta}", rest))
    keywords = {"code_type": "CENTER_SIZE", "threshold": 0.9, "top_k": 50, "least": 0.1}
    wanted = caffe_rows(bottoms, 3, shared, eta=eta, **keywords)
    assert_rows(found, wanted)
    assert wanted.shape != caffe_rows(bottoms, 3, shared, eta=1.0, **keywords).shape


def test_a_score_equal_to_the_threshold_does_not_count():
    bottoms = bottoms_of(1, 2, 2)
    bottoms["scores"][:] = [[0.5, 0.5, 0.25, 0.75]]
    found = top_of("DetectionOutput", bottoms, parameters(2, rest="confidence_threshold: 0.5"))
    np.testing.assert_array_equal(found[0, 0, :, :3], [[0, 1, 0.75]])


def test_an_overlap_equal_to_the_threshold_is_kept():
    bottoms = bottoms_of(1, 2, 2)
    bottoms["priors"][0, 0] = [0, 0, 1, 1, 0, 0, 0.5, 1]
    bottoms["code"][:] = 0
    bottoms["scores"][:] = [[0.1, 0.9, 0.2, 0.8]]
    assert top_of("DetectionOutput", bottoms, parameters(2, "nms_threshold: 0.5")).shape[2] == 2
    assert top_of("DetectionOutput", bottoms, parameters(2, "nms_threshold: 0.49")).shape[2] == 1


def test_of_equal_scores_the_first_prior_wins():
    bottoms = bottoms_of(1, 3, 2)
    bottoms["priors"][0, 0] = np.tile([0.1, 0.1, 0.5, 0.5], 3)
    bottoms["code"][:] = np.repeat([0.0, 0.01, 0.02], 4)
    bottoms["scores"][:] = np.tile([0.2, 0.8], 3)
    found = top_of("DetectionOutput", bottoms, parameters(2))
    np.testing.assert_allclose(found[0, 0], [[0, 1, 0.8, 0.1, 0.1, 0.5, 0.5]], rtol=1e-6)


def test_boxes_that_end_before_they_begin_suppress_nothing():
    bottoms = bottoms_of(1, 3, 2)
    bottoms["priors"][0, 0] = np.tile([0.5, 0.5, 0.1, 0.1], 3)
    bottoms["code"][:] = 0
    assert top_of("DetectionOutput", bottoms, parameters(2)).shape[2] == 3


@pytest.mark.parametrize("images", [1, 4])
def test_a_model_exported_with_a_symbolic_batch_lists_the_rows_of_any_number_of_images(images):
    text = parameters(3, "nms_threshold: 0.45 top_k: 10", "keep_top_k: 6 code_type: CENTER_SIZE")
    net = net_over("DetectionOutput", bottoms_of(2, 12, 3), text)
    bottoms = bottoms_of(images, 12, 3, seed=5)
    wanted = caffe_rows(bottoms, 3, code_type="CENTER_SIZE", threshold=0.45, top_k=10, keep=6)
    assert_rows(exported_tops(net, bottoms)["top"], wanted)


def test_without_a_detection_each_image_of_a_symbolic_batch_has_a_row():
    net = net_over("DetectionOutput", bottoms_of(2, 4, 2), parameters(2, rest="confidence_threshold: 1"))
    found = exported_tops(net, bottoms_of(3, 4, 2))["top"]
    np.testing.assert_array_equal(found, [[[[image, *[-1] * 6] for image in range(3)]]])


def test_no_gradient_passes():
    net = net_over("DetectionOutput", bottoms_of(1, 4, 2), parameters(2))
    rows = net.forward()["top"].shape
    assert not any(diff.any() for diff in diffs_of(net, top=np.ones(rows)).values())


def test_where_results_are_saved_is_nothing_to_the_numbers():
    bottoms = bottoms_of(1, 4, 2)
    saved = 'save_output_param { output_directory: "out" output_format: "VOC" resize_param { resize_mode: WARP } }'
    np.testing.assert_array_equal(
        top_of("DetectionOutput", bottoms, parameters(2, rest=saved)), top_of("DetectionOutput", bottoms, parameters(2))
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("detection_output_param { }", "num_classes is missing"),
        (parameters(2, rest="background_label_id: -1"), "share_location: false"),
        (parameters(2, "eta: 1.5"), "eta above 0"),
        (parameters(2, "nms_threshold: -1"), "nms_threshold 0 or more"),
        (parameters(3), r"'scores' has the shape 1×8, but 4 priors need N×12"),
        (parameters(2, rest="share_location: false"), r"'code' has the shape 1×16, but 4 priors need N×32"),
    ],
)
def test_what_does_not_fit_is_said(text, message):
    with pytest.raises(NetError, match=message):
        net_over("DetectionOutput", bottoms_of(1, 4, 2), text)


def test_priors_must_be_those_of_a_prior_box():
    bottoms = bottoms_of(1, 4, 2)
    with pytest.raises(NetError, match="must be PriorBox's 1×2×4K"):
        net_over("DetectionOutput", bottoms | {"priors": np.zeros((1, 1, 16))}, parameters(2))


@pytest.mark.parametrize("size", [(16, 24), (40, 24)])
def test_a_small_ssd_exported_for_images_of_any_size_finds_what_the_net_finds(size):
    def ssd(height: int, width: int):
        shape = (1, 3, height, width)
        convolution = "convolution_param {{ num_output: {} kernel_size: 3 pad: 1 stride: {} weight_filler {} }}"
        filler = '{ type: "gaussian" std: 0.2 }'
        order = "permute_param { order: 0 order: 2 order: 3 order: 1 }"
        return net_of(
            inputs(data=shape)
            + layer("body", "Convolution", "data", "body", convolution.format(8, 8, filler))
            + layer("loc", "Convolution", "body", "loc", convolution.format(4 * 3, 1, filler))
            + layer("loc_perm", "Permute", "loc", "loc_perm", order)
            + layer("loc_flat", "Flatten", "loc_perm", "loc_flat")
            + layer("conf", "Convolution", "body", "conf", convolution.format(2 * 3, 1, filler))
            + layer("conf_perm", "Permute", "conf", "conf_perm", order)
            + layer("conf_flat", "Flatten", "conf_perm", "conf_flat")
            + layer("prior", "PriorBox", "body data", "prior", "prior_box_param { min_size: 12 aspect_ratio: 2 }")
            + layer(
                "out", "DetectionOutput", "loc_flat conf_flat prior", "out", parameters(2, "top_k: 20", "keep_top_k: 9")
            ),
            "TEST",
        )

    data = np.random.default_rng(0).normal(size=(1, 3, *size)).astype(np.float32)
    exported = export(ssd(24, 32), ExportOptions(dynamic_size=True))
    session = onnxruntime.InferenceSession(exported.model.SerializeToString())
    (found,) = session.run([exported.outputs["data/out"]], {exported.inputs["in/data"]: data})
    wanted = ssd(*size).forward(data=data)["out"]
    assert wanted.shape[2] > 5
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
