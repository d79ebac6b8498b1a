"""Proposal against the Python layer of py-faster-rcnn and the C++ layer, step by step in numpy."""

from __future__ import annotations

import numpy as np
import pytest

import box_oracle
from caffe_tools.errors import NetError
from caffe_tools.files import load_arrays
from caffe_tools.net.inputs import feed
from caffe_tools.net.net import Net
from caffe_tools.standard.detection.proposal import make_anchors
from one_layer import diffs_of, exported_tops, net_over, top_of

ANCHORS = (
    np.float32(
        [
            [-83, -39, 100, 56],
            [-175, -87, 192, 104],
            [-359, -183, 376, 200],
            [-55, -55, 72, 72],
            [-119, -119, 136, 136],
            [-247, -247, 264, 264],
            [-35, -79, 52, 96],
            [-79, -167, 96, 184],
            [-167, -343, 184, 360],
        ]
    )
    - 1
)
"""Those that generate_anchors.py quotes from the paper's MATLAB code, which counts pixels from 1."""


def drawn(seed: int, images: int = 1, size: tuple[int, int] = (7, 9), anchors: int = 9) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    scores = random.permutation(images * 2 * anchors * size[0] * size[1]) / 1e4
    return {
        "scores": scores.reshape(images, 2 * anchors, *size).astype(np.float32),
        "deltas": random.normal(0, 0.4, (images, 4 * anchors, *size)).astype(np.float32),
        "image": np.tile(np.float32([16 * size[0], 16 * size[1], 1.5]), (images, 1)),
    }


def caffe(
    bottoms: dict[str, np.ndarray],
    anchors: np.ndarray,
    stride: int = 16,
    before: int = 6000,
    after: int = 300,
    threshold: float = 0.7,
    min_size: float = 16,
    drops_small: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and scores of one image."""
    count, (height, width) = len(anchors), bottoms["scores"].shape[2:]
    image_height, image_width, scale = bottoms["image"][0]
    boxes, scores = [], []
    for h in range(height):
        for w in range(width):
            for a in range(count):
                x1, y1, x2, y2 = anchors[a] + np.float32([w, h, w, h]) * stride
                dx, dy, dw, dh = bottoms["deltas"][0, 4 * a : 4 * a + 4, h, w]
                wide, high = x2 - x1 + 1, y2 - y1 + 1
                x, y = dx * wide + x1 + wide / 2, dy * high + y1 + high / 2
                wide, high = np.exp(dw) * wide, np.exp(dh) * high
                box = np.float32([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2])
                box = np.clip(box, 0, np.float32([image_width, image_height] * 2) - 1)
                is_large = (box[2:] - box[:2] + 1 >= min_size * scale).all()
                if is_large or not drops_small:
                    boxes.append(box)
                    scores.append(bottoms["scores"][0, count + a, h, w] if is_large else 0)
    boxes, scores = np.asarray(boxes).reshape(-1, 4), np.asarray(scores, np.float32)
    kept = box_oracle.suppress(boxes, scores, threshold, before or -1, plus=1)[: after or None]
    return np.c_[np.zeros(len(kept)), boxes[kept]], scores[kept]


def python_layer(param_str: str) -> str:
    return f'python_param {{ module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "{param_str}" }}'


def test_the_anchors_are_the_published_ones():
    for rounded in (np.round, lambda x: np.floor(x + 0.5)):
        np.testing.assert_array_equal(make_anchors(16, (0.5, 1, 2), (8, 16, 32), rounded), ANCHORS)


@pytest.mark.parametrize("seed", range(4))
def test_the_python_layer_is_known_by_name_and_gives_its_rows_in_order(seed):
    bottoms = drawn(seed)
    net = net_over("Python", bottoms, python_layer("'feat_stride': 16"), "rois scores_")
    net.forward()
    rois, scores = caffe(bottoms, ANCHORS)
    assert net.blobs["rois"].shape == rois.shape
    np.testing.assert_allclose(net.blobs["rois"].data, rois, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(net.blobs["scores_"].data, scores[:, None])


def test_the_python_layer_takes_its_scales_and_the_sizes_that_its_config_would_have():
    bottoms = drawn(0, anchors=6)
    text = "{feat_stride: 8, scales: [4, 8], RPN_PRE_NMS_TOP_N: 40, RPN_POST_NMS_TOP_N: 5, RPN_MIN_SIZE: 20}"
    rois, _ = caffe(bottoms, make_anchors(16, (0.5, 1, 2), (4, 8), np.round), 8, 40, 5, min_size=20)
    np.testing.assert_allclose(top_of("Python", bottoms, python_layer(text)), rois, rtol=1e-5, atol=1e-4)
    assert len(rois) == 5


def test_the_python_layer_takes_the_ratios_that_pvanets_reads():
    bottoms = drawn(0, anchors=8)
    text = "{feat_stride: 16, ratios: [0.333, 0.667, 1.5, 3], scales: [4, 8]}"
    rois, _ = caffe(bottoms, make_anchors(16, (0.333, 0.667, 1.5, 3), (4, 8), np.round))
    np.testing.assert_allclose(top_of("Python", bottoms, python_layer(text)), rois, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["proposal_ratios", "proposal_seven_ratios"])
def test_the_rois_of_other_ratios_are_those_of_pvanets_layer(name, shared):
    folder = shared / "field" / ("silent" if name == "proposal_ratios" else "refused")
    net = Net(folder / f"{name}.prototxt", "TEST")
    feed(net, load_arrays(folder / f"{name}.npz"), name)
    right = load_arrays(folder / f"{name}_right.npz")["data/rois"]
    np.testing.assert_allclose(net.forward()["rois"], right, rtol=1e-5, atol=1e-4)


def test_a_key_that_the_python_layer_does_not_read_is_named():
    with pytest.warns(UserWarning, match="param_str: 'base_size': the layer does not read that"):
        top_of("Python", drawn(0), python_layer("{feat_stride: 16, base_size: 8}"))


def test_in_training_the_python_layer_keeps_2000():
    bottoms = drawn(0, size=(24, 24))
    bottoms["deltas"] *= 0.1
    text = "'feat_stride': 16, 'RPN_NMS_THRESH': 1"
    assert len(top_of("Python", bottoms, python_layer(text), phase="TRAIN")) == 2000
    assert len(top_of("Python", bottoms, python_layer(text), phase="TEST")) == 300


@pytest.mark.parametrize("seed", range(3))
def test_the_cpp_layer_leaves_boxes_that_are_too_small_at_the_end_with_a_score_of_0(seed):
    bottoms = drawn(seed, anchors=4)
    bottoms["deltas"] -= 0.8
    text = "proposal_param { ratio: 0.5 ratio: 2 scale: 2 scale: 8 nms_thresh: 0.5 min_size: 24 }"
    net = net_over("Proposal", bottoms, text, "rois scores_")
    net.forward()
    anchors = make_anchors(16, (0.5, 2), (2, 8), lambda x: np.floor(x + 0.5))
    rois, scores = caffe(bottoms, anchors, threshold=0.5, min_size=24, drops_small=False)
    assert net.blobs["rois"].shape == rois.shape
    np.testing.assert_allclose(net.blobs["rois"].data, rois, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(net.blobs["scores_"].data, scores)
    assert 0 < (scores == 0).sum() < len(scores)


def test_images_of_a_batch_are_numbered_and_images_of_any_size_go_through_an_exported_model():
    net = net_over("Proposal", drawn(0, images=2), "proposal_param { post_nms_topn: 20 }")
    batch = drawn(3, images=3)
    found = exported_tops(net, batch)["top"]
    for image in range(3):
        alone = {name: value[image : image + 1] for name, value in batch.items()}
        rows = caffe(alone, ANCHORS, after=20, drops_small=False)[0]
        np.testing.assert_allclose(found[found[:, 0] == image, 1:], rows[:, 1:], rtol=1e-5, atol=1e-4)


def test_where_every_box_is_too_small_there_is_no_row():
    assert top_of("Python", drawn(0), python_layer("{feat_stride: 16, RPN_MIN_SIZE: 1000}")).shape == (0, 5)


def test_no_gradient_passes():
    net = net_over("Proposal", drawn(0))
    rows = net.forward()["top"].shape
    assert not any(diff.any() for diff in diffs_of(net, top=np.ones(rows)).values())


@pytest.mark.parametrize(
    "type_, text, message",
    [
        ("Python", python_layer(""), "must give a positive feat_stride"),
        ("Python", python_layer("{feat_stride: 16"), "param_str, character"),
        ("Python", python_layer("'feat_stride': '16'"), "feat_stride is '16'"),
        ("Python", python_layer("{feat_stride: 16, scales: 8}"), "scales is 8"),
        ("Python", python_layer("{feat_stride: 16, ratios: [0]}"), r"ratios is \[0\]"),
        ("Python", python_layer("{feat_stride: 16, scales: [8]}"), "3 anchors need N×6×H×W"),
        ("Proposal", "proposal_param { ratio: 1 }", "'scores' has the shape 1×18×7×9, but 3 anchors need"),
        ("Proposal", "proposal_param { scale: -1 }", "must be positive"),
    ],
)
def test_what_does_not_fit_is_said(type_, text, message):
    with pytest.raises(NetError, match=message):
        top_of(type_, drawn(0), text)


def test_a_module_that_the_user_allows_runs_in_the_net_and_is_exported_as_the_layer_that_is_known(
    tmp_path, monkeypatch
):
    (tmp_path / "rpn").mkdir()
    (tmp_path / "rpn" / "proposal_layer.py").write_text(
        "import caffe\n"
        "class ProposalLayer(caffe.Layer):\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(1, 5)\n"
        "    def forward(self, bottom, top): top[0].data[...] = 42\n"
        "    def backward(self, top, propagate_down, bottom): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    bottoms = drawn(0)
    net = net_over("Python", bottoms, python_layer("'feat_stride': 16"), allow_modules=["rpn"])
    assert (net.forward()["top"] == 42).all()
    rois, _ = caffe(bottoms, ANCHORS)
    np.testing.assert_allclose(exported_tops(net, bottoms)["top"], rois, rtol=1e-5, atol=1e-4)
