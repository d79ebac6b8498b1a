"""MVN in its corners: few axes, constant channels, Caffe's closed form of the gradient, open dims."""

import numpy as np
import pytest

from caffe_tools.errors import NetError
from one_layer import net_over
from open_dims import tops_with_open_dims


def mvn_net(x, param=""):
    return net_over("MVN", {"x": x}, f"mvn_param {{ {param} }}")


def oracle(x, axes, eps=1e-9):
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / (x.std(axes, keepdims=True) + eps)


@pytest.mark.parametrize(
    ("shape", "param", "axes"),
    [
        ((2, 3, 4), "", (2,)),
        ((2, 3, 4), "across_channels: true", (1, 2)),
        ((2, 6), "across_channels: true", (1,)),
        ((2, 3, 4, 5), "eps: 0.5", (2, 3)),
    ],
)
def test_the_statistics_are_those_of_a_channel_or_of_an_image(shape, param, axes):
    x = np.random.default_rng(1).normal(2, 3, shape).astype(np.float32)
    eps = 0.5 if "eps" in param else 1e-9
    np.testing.assert_allclose(mvn_net(x, param).forward()["top"], oracle(x, axes, eps), rtol=1e-5, atol=1e-6)


def test_channels_of_one_element_become_zeros_without_gradient():
    net = mvn_net(np.full((2, 3), 7.0))
    assert not net.forward()["top"].any()
    assert not net.backward(top=np.ones((2, 3)))["x"].any()


def test_a_constant_channel_becomes_zeros():
    assert not mvn_net(np.full((1, 2, 3, 3), 5.0, np.float32)).forward()["top"].any()


def test_the_gradient_takes_eps_for_zero_in_the_derivative_as_caffe_does():
    x, dy = np.random.default_rng(2).normal(size=(2, 3, 2, 8)).astype(np.float32)
    net = mvn_net(x, "eps: 0.3")
    net.forward()
    found = net.backward(top=dy)["x"]
    y = oracle(x, (2,), 0.3)
    along = dy.mean(2, keepdims=True) + y * (dy * y).mean(2, keepdims=True)
    wanted = (dy - along) / (x.std(2, keepdims=True) + 0.3)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_batch_and_image_size_may_be_open():
    x = np.random.default_rng(3).normal(size=(3, 2, 5, 4)).astype(np.float32)
    (found,) = tops_with_open_dims(mvn_net(x[:1]), {"x": ("batch", 2, "height", "width")}, {"x": x})
    np.testing.assert_allclose(found, oracle(x, (2, 3)), rtol=1e-5, atol=1e-6)


def test_more_than_four_axes_are_refused():
    with pytest.raises(NetError, match="has the shape 1×1×1×1×1: it takes 1 to 4 axes"):
        mvn_net(np.zeros((1, 1, 1, 1, 1)))
