"""BN as SegNet has it and as PSPNet has it."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_tools.errors import NetError
from one_layer import diffs_of, exported_tops, net_over

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(1, 2, (3, 4, 5, 2)).astype(np.float32)
SCALE, SHIFT, MEAN, VARIANCE = RANDOM.uniform(0.5, 2, (4, 4)).astype(np.float32)
FORM = (1, 4, 1, 1)
SEGNET = 'bn_param { scale_filler { type: "constant" value: 1 } shift_filler { type: "constant" value: 0.001 } %s }'
PSPNET = 'bn_param { slope_filler { type: "constant" value: 1 } bias_filler { type: "constant" value: 0 } %s }'


def of(values: np.ndarray) -> np.ndarray:
    return values.reshape(FORM)


def net_with(text: str, values: list[np.ndarray], phase: str, tops: str = "top"):
    net = net_over("BN", {"x": X}, text, tops, phase)
    for blob, value in zip(net.params["layer"], values, strict=True):
        assert blob.shape == FORM
        blob.data[...] = of(value)
    return net


def normalized(eps: float, mean: np.ndarray | None = None, variance: np.ndarray | None = None) -> np.ndarray:
    x = X.astype(np.float64)
    mean = x.mean((0, 2, 3)) if mean is None else mean
    variance = x.var((0, 2, 3)) if variance is None else variance
    return (x - of(mean)) / np.sqrt(of(variance) + eps) * of(SCALE) + of(SHIFT)


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_segnets_normalizes_by_the_batch_in_both_phases(phase):
    net = net_with(SEGNET % "", [SCALE, SHIFT], phase)
    np.testing.assert_allclose(net.forward()["top"], normalized(1e-9), rtol=1e-4, atol=1e-5)


def test_more_tops_of_segnets_give_the_batchs_mean_and_variance():
    net = net_with(SEGNET % "", [SCALE, SHIFT], "TRAIN", "top mean variance")
    net.forward()
    np.testing.assert_allclose(net.blobs["mean"].data, of(X.mean((0, 2, 3))), rtol=1e-5)
    np.testing.assert_allclose(net.blobs["variance"].data, of(X.var((0, 2, 3))), rtol=1e-5)


def test_segnets_in_inference_is_scale_and_shift():
    net = net_with(SEGNET % "bn_mode: INFERENCE", [SCALE, SHIFT], "TEST")
    np.testing.assert_allclose(net.forward()["top"], X * of(SCALE) + of(SHIFT), rtol=1e-5, atol=1e-6)
    more = np.concatenate([X, X])
    np.testing.assert_allclose(exported_tops(net, {"x": more})["top"][3:], net.blobs["top"].data, rtol=1e-6)


@pytest.mark.parametrize("phase, frozen", [("TEST", "false"), ("TEST", "true"), ("TRAIN", "true")])
def test_pspnets_normalizes_by_the_stored_statistics_in_test_and_where_it_is_frozen(phase, frozen):
    net = net_with(PSPNET % f"frozen: {frozen} momentum: 0.95", [SCALE, SHIFT, MEAN, VARIANCE], phase)
    np.testing.assert_allclose(net.forward()["top"], normalized(1e-5, MEAN, VARIANCE), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(net.params["layer"][2].data, of(MEAN))


def test_pspnets_in_training_normalizes_by_the_batch_and_moves_the_stored_statistics():
    net = net_with(PSPNET % "momentum: 0.75 eps: 0.001", [SCALE, SHIFT, MEAN, VARIANCE], "TRAIN")
    np.testing.assert_allclose(net.forward()["top"], normalized(1e-3), rtol=1e-4, atol=1e-5)
    for index, stored, now in ((2, MEAN, X.mean((0, 2, 3))), (3, VARIANCE, X.var((0, 2, 3)))):
        np.testing.assert_allclose(net.params["layer"][index].data, of(0.75 * stored + 0.25 * now), rtol=1e-5)


def test_the_older_form_of_pspnets_has_a_decay_and_an_epsilon_of_its_own():
    net = net_with(SEGNET % "var_eps: 0.01 decay: 0.25 moving_average: false", [SCALE, SHIFT, MEAN, VARIANCE], "TEST")
    np.testing.assert_allclose(net.forward()["top"], normalized(0.01), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(net.params["layer"][2].data, of(MEAN))
    net = net_with(SEGNET % "var_eps: 0.01 decay: 0.25", [SCALE, SHIFT, MEAN, VARIANCE], "TRAIN")
    net.forward()
    np.testing.assert_allclose(net.params["layer"][2].data, of(0.75 * MEAN + 0.25 * X.mean((0, 2, 3))), rtol=1e-5)


@pytest.mark.parametrize(
    "text, values", [(SEGNET % "", [SCALE, SHIFT]), (PSPNET % "eps: 1e-9", [SCALE, SHIFT, MEAN, VARIANCE])]
)
def test_the_gradient_goes_through_the_batchs_statistics(text, values):
    net = net_with(text, values, "TRAIN")
    dy = RANDOM.normal(size=X.shape).astype(np.float32)
    dx = diffs_of(net, top=dy)["x"]
    x = X.astype(np.float64)
    deviation = np.sqrt(of(x.var((0, 2, 3))))
    unit = (x - of(x.mean((0, 2, 3)))) / deviation
    mean = {"axis": (0, 2, 3), "keepdims": True}
    wanted = of(SCALE) * (dy - dy.mean(**mean) - unit * (dy * unit).mean(**mean)) / deviation
    np.testing.assert_allclose(dx, wanted, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(net.params["layer"][0].diff, of((dy * unit).sum((0, 2, 3))), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(net.params["layer"][1].diff, of(dy.sum((0, 2, 3))), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "text, tops, message",
    [
        (PSPNET % "bn_mode: LEARN", "top", "bn_mode .* does not go with bias_filler, slope_filler"),
        (PSPNET % "", "top mean", "SegNet's form"),
        (SEGNET % "bn_mode: INFERENCE", "top mean", "INFERENCE has no statistics"),
    ],
)
def test_the_forms_do_not_mix(text, tops, message):
    with pytest.raises(NetError, match=message):
        net_over("BN", {"x": X}, text, tops)
