"""The losses as their definitions read: float64, one position and channel at a time, no thought of speed or overflow.

Written from the documentation alone; it shares nothing with the layers.
"""

from __future__ import annotations

import numpy as np

SOFTMAX_LIKE = ("cross_entropy_loss", "softmax_loss", "softmax_focal_loss")


def loss(name, scores, labels, weights=None, **given):
    """The loss that ``caffe_layers.functional.<name>`` defines, with the same arguments."""
    sigmoid_like = name not in SOFTMAX_LIKE
    p = dict(axis=1, target="multi_label" if sigmoid_like else "index", ignore_label=None, normalization=None)
    p.update(normalize=None, class_weight=None, label_smoothing=0.0, background_label=0, pos_weight=None)
    p.update(alpha=0.25 if "focal" in name else None, gamma=2.0 if "focal" in name else 0.0)
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
                    term = _sigmoid_term if sigmoid_like else _softmax_term
                    total += w_all[n, c, s] * class_weight[c] * term(name, x[n, :, s], c, t, label, p)
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


def _softmax_term(name, x, c, t, label, p):
    if t == 0:
        return 0.0
    if name == "cross_entropy_loss":
        return -t * np.log(max(x[c], 1e-20))
    m = max(x)
    others = sum(np.exp(v - x[c]) for k, v in enumerate(x) if k != c) if m - x[c] < 600 else np.inf
    nll = np.log1p(others) if others < np.inf else m - x[c] + np.log(sum(np.exp(v - m) for v in x))
    if name == "softmax_loss":
        return t * nll
    alpha = p["alpha"]
    if isinstance(alpha, list):
        alpha = alpha[label]
    elif alpha is not None and label == p["background_label"]:
        alpha = 1 - alpha
    q = others / (1 + others) if others < np.inf else 1.0
    return t * (1.0 if alpha is None else alpha) * q ** p["gamma"] * nll


def _sigmoid_term(name, x, c, t, label, p):
    x = x[c]
    pos_weight = p["pos_weight"]
    pos_weight = 1.0 if pos_weight is None else pos_weight[c] if isinstance(pos_weight, list) else pos_weight
    softplus, softplus_of_minus = np.logaddexp(0, x), np.logaddexp(0, -x)
    cross_entropy = pos_weight * t * softplus_of_minus + (1 - t) * softplus
    sigma, one_minus_sigma = np.exp(-softplus_of_minus), np.exp(-softplus)
    alpha = p["alpha"]
    if isinstance(alpha, list):
        alpha = alpha[c]
    elif alpha is not None:
        alpha = alpha * t + (1 - alpha) * (1 - t)
    miss = sigma * (1 - t) + one_minus_sigma * t
    return (1.0 if alpha is None else alpha) * miss ** p["gamma"] * cross_entropy
