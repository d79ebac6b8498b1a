"""The losses as their definitions read: float64, one position and channel at a time, no thought of speed or overflow.

Written from the documentation alone; it shares nothing with the layers. Here stands what many losses share; the test
file of a loss (tests/layers/losses) has its own ``term`` and makes its ``oracle`` of it.
"""

from __future__ import annotations

from functools import partial

import numpy as np


def per_position(term, **defaults):
    """The loss that sums ``term(x, c, t, label, p)`` over positions and channels, as the softmax losses do.

    x are the scores of the position, t the target of channel c after smoothing, label the position's label (None where
    targets are dense), p the parameters. ``defaults`` are those of the loss's own parameters.
    """
    return partial(_loss, term, False, defaults)


def per_element(term, **defaults):
    """The same for the sigmoid losses, which count elements and whose targets are questions of their own."""
    return partial(_loss, term, True, defaults)


def _loss(term, sigmoid_like, defaults, scores, labels, weights=None, **given):
    p = dict(axis=1, target="multi_label" if sigmoid_like else "index", ignore_label=None, normalization=None)
    p.update(normalize=None, class_weight=None, label_smoothing=0.0, background_label=0, pos_weight=None)
    p.update(defaults)
    p.update(given)
    scores = np.asarray(scores, np.float64)
    axis = p["axis"] % scores.ndim
    outer, channels = int(np.prod(scores.shape[:axis])), scores.shape[axis]
    x = scores.reshape(outer, channels, -1)
    inner = x.shape[2]
    class_weight = p["class_weight"] or [1.0] * channels
    dense = p["target"] != "index"
    t_all = np.asarray(labels, np.float64).reshape(x.shape if dense else (outer, inner))
    w_all = np.ones(x.shape)
    if weights is not None:
        w_all = np.asarray(weights, np.float64)
        w_all = w_all.reshape(outer, 1, inner) if w_all.size == outer * inner else w_all.reshape(x.shape)
        w_all = np.broadcast_to(w_all, x.shape)
    total = valid = positives = weight = 0.0
    for n in range(outer):
        for s in range(inner):
            target, counted, foreground, label = _target(
                t_all[n, :, s] if dense else t_all[n, s], channels, p, sigmoid_like
            )
            position_counted = any(counted) if dense else label is not None
            if sigmoid_like:
                valid += sum(counted) if dense else channels * position_counted
            else:
                valid += position_counted
            positives += foreground
            weight += sum(
                w_all[n, c, s] * class_weight[c] * _share(target, p, sigmoid_like)[c]
                for c in range(channels)
                if counted[c]
            )
            for c in range(channels):
                if counted[c]:
                    t = _smooth(target, p, sigmoid_like)[c]
                    if t or sigmoid_like:
                        total += w_all[n, c, s] * class_weight[c] * term(x[n, :, s], c, t, label, p)
    mode = p["normalization"]
    if mode is None and p["normalize"] is not None:
        mode = "VALID" if p["normalize"] else "BATCH_SIZE"
    mode = mode or ("BATCH_SIZE" if sigmoid_like else "VALID")
    batch = scores.shape[0] if sigmoid_like else outer
    full = outer * inner * (channels if sigmoid_like else 1)
    if mode == "WEIGHT":
        return total / weight if weight else 0.0
    counts = {"NONE": 1, "FULL": full, "VALID": valid, "BATCH_SIZE": batch, "POSITIVES": positives}
    return total / max(1, counts[mode])


def _target(value, channels, p, sigmoid_like):
    """(t, which channels count, number of positives, label or None)"""
    if p["target"] != "index":
        counted = [t != p["ignore_label"] for t in value]
        t = [t if c else 0.0 for t, c in zip(value, counted, strict=True)]
        if p["target"] == "multi_label":
            return t, counted, sum(v > 0 for v in t), None
        return t, counted, any(v > 0 and c != p["background_label"] for c, v in enumerate(t)), None
    label = int(value)
    if label == p["ignore_label"]:
        return [0.0] * channels, [False] * channels, 0, None
    names = list(range(channels + (p["background_label"] is not None))) if sigmoid_like else list(range(channels))
    if sigmoid_like and p["background_label"] is not None:
        names.remove(p["background_label"])
    return [float(name == label) for name in names], [True] * channels, label != p["background_label"], label


def _share(t, p, sigmoid_like):
    """The target before smoothing: multi-label softmax gives each label its share."""
    number = sum(v != 0 for v in t) if p["target"] == "multi_label" and not sigmoid_like else 1
    return [v / max(number, 1) for v in t]


def _smooth(t, p, sigmoid_like):
    eps, share = p["label_smoothing"], _share(t, p, sigmoid_like)
    if p["target"] == "multi_label" and not sigmoid_like and not any(t):
        return share
    return [(1 - eps) * v + eps / (2 if sigmoid_like else len(t)) for v in share]


def softmax_miss(x, c):
    """(1 - p_c, -log p_c) of the softmax p of x."""
    m = max(x)
    others = sum(np.exp(v - x[c]) for k, v in enumerate(x) if k != c) if m - x[c] < 600 else np.inf
    nll = np.log1p(others) if others < np.inf else m - x[c] + np.log(sum(np.exp(v - m) for v in x))
    return others / (1 + others) if others < np.inf else 1.0, nll


def sigmoid_miss(x, c, t, p):
    """(1 - p_t, the cross-entropy) of the sigmoid of x_c."""
    pos_weight = 1.0 if p["pos_weight"] is None else p["pos_weight"]
    pos_weight = pos_weight[c] if isinstance(pos_weight, list) else pos_weight
    softplus, softplus_of_minus = np.logaddexp(0, x[c]), np.logaddexp(0, -x[c])
    cross_entropy = pos_weight * t * softplus_of_minus + (1 - t) * softplus
    return np.exp(-softplus_of_minus) * (1 - t) + np.exp(-softplus) * t, cross_entropy
