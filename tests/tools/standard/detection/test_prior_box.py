"""PriorBox beside the golden cases: its parameters, bad ones, and sizes that only the running graph knows."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools import standard
from caffe_tools.errors import NetError
from caffe_tools.graph.builder import Builder
from caffe_tools.graph.session import make_session
from caffe_tools.prototxt.layer_spec import LayerSpec
from caffe_tools.prototxt.text import parse
from one_layer import exported_tops, net_over, top_of

BOTTOMS = {"map": np.zeros((2, 4, 3, 5), np.float32), "image": np.zeros((2, 3, 48, 80), np.float32)}


def priors(parameters: str, bottoms: dict[str, np.ndarray] = BOTTOMS) -> np.ndarray:
    return top_of("PriorBox", bottoms, f"prior_box_param {{ {parameters} }}")


def caffe_boxes(
    size: tuple, image: tuple, sides: list[tuple[float, float]], step: tuple | None = None, offset: float = 0.5
) -> np.ndarray:
    """Position by position, box by box, (width, height) of the boxes given: rows of xmin, ymin, xmax, ymax."""
    step = step or (image[0] / size[0], image[1] / size[1])
    boxes = []
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = (row + offset) * step[0], (column + offset) * step[1]
            boxes += [
                ((x - w / 2) / image[1], (y - h / 2) / image[0], (x + w / 2) / image[1], (y + h / 2) / image[0])
                for w, h in sides
            ]
    return np.array(boxes)


def test_a_position_has_the_small_square_the_middle_one_and_each_ratio_with_its_flip():
    root = np.sqrt(2)
    sides = [(10, 10), (np.sqrt(200),) * 2, (10 * root, 10 / root), (10 / root, 10 * root)]
    top = priors("min_size: 10 max_size: 20 aspect_ratio: 2")
    assert top.shape == (1, 2, 3 * 5 * 4 * 4)
    np.testing.assert_allclose(top[0, 0].reshape(-1, 4), caffe_boxes((3, 5), (48, 80), sides), rtol=1e-5, atol=1e-6)


def test_ratios_given_twice_and_the_flip_of_one_given_are_taken_once():
    once = priors("min_size: 10 aspect_ratio: 2 aspect_ratio: 3")
    np.testing.assert_array_equal(
        priors("min_size: 10 aspect_ratio: 1 aspect_ratio: 2 aspect_ratio: 0.5 aspect_ratio: 3 aspect_ratio: 3"), once
    )


def test_sizes_are_cut_to_whole_pixels_as_in_caffe():
    np.testing.assert_array_equal(priors("min_size: 10.9 max_size: 21.7"), priors("min_size: 10 max_size: 21"))


def test_image_and_steps_may_be_given_for_both_axes_or_each():
    sides = [(10, 10)]
    top = priors("min_size: 10 img_h: 30 img_w: 60 step_h: 7 step_w: 9 offset: 0.25")
    wanted = caffe_boxes((3, 5), (30, 60), sides, (7, 9), 0.25)
    np.testing.assert_allclose(top[0, 0].reshape(-1, 4), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(
        priors("min_size: 10 img_size: 30 step: 7"), priors("min_size: 10 img_h: 30 img_w: 30 step_h: 7 step_w: 7")
    )


def test_the_second_channel_holds_the_variances():
    assert set(priors("min_size: 10")[0, 1]) == {np.float32(0.1)}
    four = "variance: 0.1 variance: 0.2 variance: 0.3 variance: 0.4"
    np.testing.assert_allclose(priors(f"min_size: 10 {four}")[0, 1].reshape(-1, 4)[7], [0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    "parameters",
    [
        "min_size: 10 max_size: 20 aspect_ratio: 2 aspect_ratio: 3",
        "min_size: 10 img_size: 64 clip: true",
        "min_size: 10 step: 16 variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2",
    ],
)
def test_boxes_of_a_map_whose_size_only_the_running_graph_knows_are_the_same(parameters):
    message = parse(f'name: "p" type: "PriorBox" bottom: "map" bottom: "image" prior_box_param {{ {parameters} }}')
    spec = LayerSpec(name="p", type="PriorBox", bottoms=["map", "image"], tops=["top"], message=message)
    op = Builder()
    bottoms = [op.input("map", ["n", 4, "h", "w"]), op.input("image", ["n", 3, "H", "W"])]
    (top,) = standard.build(op, standard.Layer(spec, standard.TYPES["PriorBox"], None), bottoms)
    op.output(top, "top")
    found = make_session(op.graph).run(None, BOTTOMS)[0]
    np.testing.assert_allclose(found, priors(parameters), rtol=1e-6, atol=1e-7)


def test_boxes_of_known_sizes_are_stored_and_need_no_bottom():
    net = net_over("PriorBox", BOTTOMS, "prior_box_param { min_size: 10 }")
    np.testing.assert_array_equal(exported_tops(net, {})["top"], priors("min_size: 10"))


@pytest.mark.parametrize(
    "parameters, message",
    [
        ("", "min_size must be given"),
        ("min_size: 0", "be positive"),
        ("min_size: 10 min_size: 20 max_size: 30", "max_size is given 1 times for 2 min_size"),
        ("min_size: 10 max_size: 10", "must be greater than its min_size"),
        ("min_size: 10 aspect_ratio: -2", "aspect_ratio"),
        ("min_size: 10 variance: 0.1 variance: 0.2", "one positive number, or four"),
        ("min_size: 10 step: 8 step_h: 8", "give step, or step_h and step_w, not both"),
        ("min_size: 10 img_w: 8", "give img_size, or img_h and img_w"),
        ("min_size: 10 img_size: 0", "must be positive"),
    ],
)
def test_parameters_that_caffe_aborts_on_are_refused(parameters, message):
    with pytest.raises(NetError, match=message):
        priors(parameters)


def test_a_map_without_four_axes_is_refused():
    with pytest.raises(NetError, match="'map' has the shape 2×3: it takes 4 axes"):
        priors("min_size: 10", BOTTOMS | {"map": np.zeros((2, 3))})
