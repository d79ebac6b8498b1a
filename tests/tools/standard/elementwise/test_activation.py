"""Activations: corners that no case of a real Caffe shows."""

from __future__ import annotations

import numpy as np

from one_layer import diffs_of, net_over, top_of


def test_bnll_is_exact_where_exp_would_overflow_or_vanish():
    x = np.array([[-100.0, -3.5, -1.0, -0.25, 0.0, 0.25, 1.0, 3.5, 60.0]], np.float32)
    np.testing.assert_allclose(top_of("BNLL", {"x": x}), np.logaddexp(0, x.astype(np.float64)), rtol=1e-6, atol=1e-38)


def test_relu6_stops_at_6_and_passes_the_gradient_between_its_ends_alone():
    x = np.array([[-1, 0, 3, 6, 7]], np.float32)
    net = net_over("ReLU6", {"x": x})
    np.testing.assert_array_equal(net.forward()["top"], [[0, 0, 3, 6, 6]])
    np.testing.assert_array_equal(diffs_of(net, top=np.full((1, 5), 2.0))["x"], [[0, 0, 2, 0, 0]])
