"""The referee on losses as public code writes them: what is wrong is named, on inner and extreme scores too."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, parser

from caffe_tools.errors import GraphError
from caffe_tools.gradient import gradient_model
from caffe_tools.referee.referee import crosscheck

FOCAL, SIGMOID = "SigmoidFocalLossLayer", "SigmoidCrossEntropyLossLayer"
SOFTMAX, SOFTMAX_FOCAL = "SoftmaxLossLayer", "SoftmaxFocalLossLayer"
CROSS_ENTROPY = "CrossEntropyLossLayer"

HEAD = """
    <ir_version: 8, opset_import: ["" : 18]>
    foreign (float[4, 5] x, {labels} t) => (float loss)
    <float one = {{1.0}}, float half = {{0.5}}, float two = {{2.0}}, float three = {{3.0}}, float alpha = {{{alpha}}},
     float beta = {{{beta}}}, float gamma = {{{gamma}}}, float low = {{{low}}}, float high = {{{high}}},
     float five = {{5.0}}, float keep = {{{keep}}}, float share = {{{share}}}, int64[1] last = {{-1}},
     float[2] hot = {{0.0, 1.0}}, int64 depth = {{5}}, float[5] weight = {{1.0, 2.0, 0.5, 3.0, 1.5}}>
    {{
        {body}
    }}
"""


def graph(body, labels="float[4, 5]", alpha=0.25, gamma=2.0, epsilon=1e-7, keep=0.9, share=0.1):
    """The loss as it is written."""
    numbers = dict(alpha=alpha, beta=1 - alpha, gamma=gamma, low=epsilon, high=1 - epsilon, keep=keep, share=share)
    texts = {key: np.format_float_positional(value, trim="0") for key, value in numbers.items()}
    return parser.parse_model(HEAD.format(labels=labels, body=body, **texts))


def judged(model, layer, params, by="x"):
    model = gradient_model(model, "loss", [by])
    return crosscheck(model, layer, bottoms=["x", "t"], loss="loss", gradients={f"{by}.diff": by}, param_str=params)


SIDES = """
    p = Sigmoid(x) q = Sub(one, p) u = Sub(one, t) minus = Neg(x) lp = Softplus(minus) lq = Softplus(x)
"""
LOGS = """
    p = Sigmoid(x) q = Sub(one, p) u = Sub(one, t) logp = Log(p) lp = Neg(logp) logq = Log(q) lq = Neg(logq)
"""
CLAMPED = """
    raw = Sigmoid(x) p = Clip(raw, low, high) q = Sub(one, p) u = Sub(one, t)
    logp = Log(p) lp = Neg(logp) logq = Log(q) lq = Neg(logq)
"""
ADDED = """
    p = Sigmoid(x) q = Sub(one, p) u = Sub(one, t) pe = Add(p, low) qe = Add(q, low)
    logp = Log(pe) lp = Neg(logp) logq = Log(qe) lq = Neg(logq)
"""
BCE = " a = Mul(t, lp) b = Mul(u, lq) bce = Add(a, b) "
FOCAL_SIDES = """
    mp = Pow(q, gamma) mn = Pow(p, gamma) a0 = Mul(t, lp) a1 = Mul(a0, mp) a = Mul(a1, alpha)
    b0 = Mul(u, lq) b1 = Mul(b0, mn) b = Mul(b1, beta) each = Add(a, b)
"""
SUM, MEAN = " loss = ReduceSum<keepdims = 0>({0}) ", " loss = ReduceMean<keepdims = 0>({0}) "
NONE, FULL = "normalization: NONE", "normalization: FULL"
SOFTLY = ", on targets of 0 and 1 (soft targets are weighed otherwise)"


def bce(body, **numbers):
    return lambda: graph(body + BCE + MEAN.format("bce"), **numbers)


def focal(body, end=" loss = ReduceSum<keepdims = 0>(each) ", **numbers):
    return lambda: graph(body + FOCAL_SIDES + end, **numbers)


def modulated(factor, **numbers):
    weigh = " wa = Mul(t, alpha) wb = Mul(u, beta) w = Add(wa, wb) wbce = Mul(w, bce) "
    return lambda: graph(SIDES + BCE + weigh + factor + " each = Mul(wbce, m)" + SUM.format("each"), **numbers)


PROBABILITIES = {
    "log of softmax": " p = Softmax<axis = 1>(x) logp = Log(p) ",
    "clamped": " raw = Softmax<axis = 1>(x) p = Clip(raw, low, high) logp = Log(p) ",
    "added": " p = Softmax<axis = 1>(x) pe = Add(p, low) logp = Log(pe) ",
    "stable": " p = Softmax<axis = 1>(x) logp = LogSoftmax<axis = 1>(x) ",
}
HOT = " y = OneHot<axis = 1>(t, depth, hot) "


def softmax(kind, target=" z = Identity(y) ", more=" each = Mul(z, logp) ", **numbers):
    end = " rows = ReduceSum<keepdims = 0>(each, last) mean = ReduceMean<keepdims = 0>(rows) loss = Neg(mean) "
    return lambda: graph(HOT + PROBABILITIES[kind] + target + more + end, labels="int64[4]", **numbers)


SMOOTHED = " y0 = Mul(y, keep) z = Add(y0, share) "
BCE_SMOOTHED = SIDES.replace("u = Sub(one, t)", "t0 = Mul(t, keep) s = Add(t0, share) u = Sub(one, s)")
BCE_OF_S = " a = Mul(s, lp) b = Mul(u, lq) bce = Add(a, b) " + MEAN.format("bce")

WRONG = {
    "alpha swapped": (focal(SIDES, alpha=0.75), FOCAL, NONE, "alpha and 1 - alpha were swapped", SOFTLY),
    "another alpha swapped": (
        focal(SIDES, alpha=0.9, gamma=1.5),
        FOCAL,
        f"{NONE}, alpha: 0.1, gamma: 1.5",
        "alpha and 1 - alpha were swapped",
        SOFTLY,
    ),
    "the mean of an anchor": (
        focal(SIDES, " s = Div(each, five) loss = ReduceSum<keepdims = 0>(s) "),
        FOCAL,
        NONE,
        "the sum were divided by 5",
        SOFTLY,
    ),
    "the mean of an anchor, no focal": (
        lambda: graph(SIDES + BCE + " s = Div(bce, five) loss = ReduceSum<keepdims = 0>(s) "),
        SIGMOID,
        NONE,
        "the sum were divided by 5",
        "",
    ),
    "negatives modulated as positives": (
        modulated(" m = Pow(q, gamma) "),
        FOCAL,
        NONE,
        "negatives were modulated by (1 - p)^gamma, as positives are",
        "",
    ),
    "another gamma": (
        modulated(" m = Pow(q, gamma) ", gamma=3.0),
        FOCAL,
        f"{NONE}, gamma: 3",
        "negatives were modulated by (1 - p)^gamma",
        "",
    ),
    "positives modulated as negatives": (
        modulated(" m = Pow(p, gamma) "),
        FOCAL,
        NONE,
        "positives were modulated by p^gamma, as negatives are",
        "",
    ),
    "positives alone modulated": (
        lambda: graph(
            SIDES + " mp = Pow(q, gamma) a0 = Mul(t, lp) a = Mul(a0, mp) b = Mul(u, lq) s = Add(a, b)"
            " wa = Mul(t, alpha) wb = Mul(u, beta) w = Add(wa, wb) each = Mul(w, s)" + SUM.format("each")
        ),
        FOCAL,
        NONE,
        "the modulating factor (gamma) weighed the positives alone",
        "",
    ),
    "negatives alone weighed by alpha": (
        lambda: graph(SIDES + FOCAL_SIDES.replace("a = Mul(a1, alpha)", "a = Identity(a1)") + SUM.format("each")),
        FOCAL,
        NONE,
        "1 - alpha weighed the negatives alone",
        SOFTLY,
    ),
    "class weights on the positives alone": (
        lambda: graph(
            SIDES + " a0 = Mul(t, lp) a = Mul(a0, weight) b = Mul(u, lq) bce = Add(a, b)" + MEAN.format("bce")
        ),
        SIGMOID,
        f"{FULL}, class_weight: [1, 2, 0.5, 3, 1.5]",
        "class_weight weighed the positives alone",
        "",
    ),
    "class weights on the negatives alone": (
        lambda: graph(
            SIDES + " a = Mul(t, lp) b0 = Mul(u, lq) b = Mul(b0, weight) bce = Add(a, b)" + MEAN.format("bce")
        ),
        SIGMOID,
        f"{FULL}, class_weight: [1, 2, 0.5, 3, 1.5]",
        "class_weight weighed the negatives alone",
        "",
    ),
    "clamped at 1e-4": (focal(CLAMPED, epsilon=1e-4), FOCAL, NONE, "p were clamped to [1e-4, 1 - 1e-4]", SOFTLY),
    "clamped at an epsilon of its own": (
        focal(CLAMPED, epsilon=3.7e-3),
        FOCAL,
        NONE,
        "p were clamped to [3.7e-3, 1 - 3.7e-3]",
        SOFTLY,
    ),
    "cross-entropy clamped at 1e-7": (bce(CLAMPED), SIGMOID, FULL, "p were clamped to [1e-7, 1 - 1e-7]", ""),
    "cross-entropy clamped at 1e-3": (
        bce(CLAMPED, epsilon=1e-3),
        SIGMOID,
        FULL,
        "p were clamped to [1e-3, 1 - 1e-3]",
        "",
    ),
    "an epsilon added": (bce(ADDED, epsilon=1e-3), SIGMOID, FULL, "the logarithm were taken of p + 1e-3", ""),
    "softmax clamped": (softmax("clamped", epsilon=1e-6), SOFTMAX, "", "p were clamped to [1e-6, 1 - 1e-6]", ""),
    "softmax, an epsilon added": (
        softmax("added", epsilon=1e-3),
        SOFTMAX,
        "",
        "the logarithm were taken of p + 1e-3",
        "",
    ),
    "smoothing by shares": (
        softmax("stable", SMOOTHED, keep=0.98, share=0.02),
        SOFTMAX,
        "label_smoothing: 0.1",
        "the target were t (1 - eps / C) + eps / C",
        "",
    ),
    "another smoothing by shares": (
        softmax("stable", SMOOTHED, keep=0.94, share=0.06),
        SOFTMAX,
        "label_smoothing: 0.3",
        "the target were t (1 - eps / C) + eps / C",
        "",
    ),
    "sigmoid smoothing by shares": (
        lambda: graph(BCE_SMOOTHED + BCE_OF_S, keep=0.98, share=0.02),
        SIGMOID,
        f"{FULL}, label_smoothing: 0.1",
        "the target were t (1 - eps / C) + eps / C",
        "",
    ),
    "sigmoid smoothing over the classes": (
        lambda: graph(BCE_SMOOTHED + BCE_OF_S, keep=0.9, share=0.02),
        SIGMOID,
        f"{FULL}, label_smoothing: 0.1",
        "the target were t (1 - eps) + eps / C",
        "",
    ),
    "smoothing where there is none": (
        softmax("stable", SMOOTHED, keep=0.9, share=0.02),
        SOFTMAX,
        "",
        "label_smoothing were 0.1, where it is 0",
        "",
    ),
    "another smoothing": (
        softmax("stable", SMOOTHED, keep=0.85, share=0.03),
        SOFTMAX,
        "label_smoothing: 0.1",
        "label_smoothing were 0.15",
        "",
    ),
    "softmax focal clamped": (
        softmax(
            "clamped",
            more=" q = Sub(one, p) m = Pow(q, gamma) w0 = Mul(m, logp) w1 = Mul(z, w0) each = Mul(w1, alpha) ",
            epsilon=1e-5,
        ),
        SOFTMAX_FOCAL,
        "background_label: null",
        "p were clamped to [1e-5, 1 - 1e-5]",
        "",
    ),
}


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_of_public_code_is_named(name, inner):
    make, layer, params, says, softly = WRONG[name]
    model = make()
    by = "x"
    if inner:
        model, by = behind_weights(model), "W"
    verdict = judged(model, layer, params, by)
    assert not verdict.agrees
    assert [one.tensors for one in verdict.diagnoses] == [("loss", f"{by}.diff")]
    text = verdict.diagnoses[0].text
    assert f" would agree if {says}" in text
    assert text.endswith(SOFTLY) == bool(softly), text


def behind_weights(model):
    """The scores x computed from data and weights."""
    (scores,) = [value for value in model.graph.input if value.name == "x"]
    model.graph.input.remove(scores)
    model.graph.input.insert(0, helper.make_tensor_value_info("data", TensorProto.FLOAT, [4, 6]))
    model.graph.input.append(helper.make_tensor_value_info("W", TensorProto.FLOAT, [6, 5]))
    model.graph.node.insert(0, helper.make_node("MatMul", ["data", "W"], ["x"]))
    return model


NOT_FINITE = {
    "sigmoid": (bce(LOGS), SIGMOID, FULL, r"sigmoid, then log: not finite beyond a score of 1[67]"),
    "focal": (focal(LOGS), FOCAL, NONE, r"sigmoid, then log: not finite beyond a score of 1[67]"),
    "softmax": (softmax("log of softmax"), SOFTMAX, "", r"softmax, then log: not finite beyond a score of \d+"),
}


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("name", NOT_FINITE)
def test_what_is_not_finite_says_why_and_from_where_on(name, inner):
    make, layer, params, says = NOT_FINITE[name]
    model = behind_weights(make()) if inner else make()
    verdict = judged(model, layer, params, "W" if inner else "x")
    assert not verdict.agrees
    texts = [one.text for one in verdict.diagnoses]
    assert any(re.search(says, text) for text in texts), texts
    assert not any("ratio" in one.numbers for one in verdict.diagnoses if "not-finite" in one.departures)


RIGHT = {
    "sigmoid": (bce(SIDES), SIGMOID, FULL),
    "softmax": (softmax("stable"), SOFTMAX, ""),
    "smoothed": (softmax("stable", SMOOTHED, keep=0.9, share=0.02), SOFTMAX, "label_smoothing: 0.1"),
}


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("name", RIGHT)
def test_a_right_graph_agrees_on_extreme_scores_too(name, inner):
    make, layer, params = RIGHT[name]
    model = behind_weights(make()) if inner else make()
    verdict = judged(model, layer, params, "W" if inner else "x")
    assert verdict.agrees and "extreme scores" in {row.probe for row in verdict.rows}
    assert verdict.diagnoses == [] and verdict.notes == []


ARTIFACT = """
    <ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>
    artifact (float[4, 5] x, float[4, 5] t) => (float loss, float[4, 5] dx)
    {
        p = Sigmoid(x)
        loss = ReduceMean<keepdims = 0>(p)
        dx = com.microsoft.SigmoidGrad(t, p)
    }
"""


def test_operators_of_onnxruntime_training_are_said_to_be_its():
    with pytest.raises(
        GraphError, match="no operator com.microsoft.SigmoidGrad .*is an operator of .*onnxruntime-training"
    ):
        crosscheck(parser.parse_model(ARTIFACT), SIGMOID, bottoms=["x", "t"], loss="loss")


def test_an_unknown_operator_of_another_kind_has_no_such_hint():
    model = parser.parse_model(ARTIFACT.replace("com.microsoft.SigmoidGrad", "com.microsoft.Whatever"))
    with pytest.raises(GraphError, match="no operator com.microsoft.Whatever$"):
        crosscheck(model, SIGMOID, bottoms=["x", "t"], loss="loss")


def test_a_loss_that_is_not_of_the_scores_alone_is_not_judged_on_extreme_ones():
    """It takes the data's product with the weights once more, in place of the scores."""
    model = behind_weights(RIGHT["sigmoid"][0]())
    again = helper.make_node("MatMul", ["data", "W"], ["again"])
    for node in model.graph.node[1:]:
        node.input[:] = ["again" if name == "x" else name for name in node.input]
    model.graph.node.insert(1, again)
    verdict = crosscheck(model, SIGMOID, bottoms=["x", "t"], loss="loss", param_str=FULL)
    assert verdict.agrees and "extreme scores" not in {row.probe for row in verdict.rows}
    assert verdict.notes == [
        "extreme scores: loss cannot be judged there, for the graph computes it from more than the scores x"
    ]


FIELD = {
    "fl_alpha_swap": ("loss and dx would agree if alpha and 1 - alpha were swapped", SOFTLY),
    "fl_mean_anchor": (
        "loss and dx would agree if the sum were divided by 5 (the mean over an anchor's classes)",
        SOFTLY,
    ),
    "fl2_neg_wrong": ("loss and dx would agree if negatives were modulated by (1 - p)^gamma, as positives are", ""),
    "fl2_clamp": ("loss and dx would agree if p were clamped to [1e-4, 1 - 1e-4]", SOFTLY),
    "ce_ls_timm": ("loss and dx would agree if the target were t (1 - eps / C) + eps / C", ""),
    "clip_bce": ("loss would agree if p were clamped to [1e-7, 1 - 1e-7] (probabilities clipped at 1e-7)", ""),
    "naive_bce": ("loss: sigmoid, then log: not finite beyond a score of 17", ""),
    "inner_scores_bce": ("loss: sigmoid, then log: not finite beyond a score of 17", ""),
}


@pytest.mark.parametrize("name", FIELD)
def test_the_graphs_met_in_the_field(name, shared):
    says, softly = FIELD[name]
    model = onnx.load(shared / "field" / "crosscheck" / f"{name}.onnx")
    layer, params = (FOCAL, NONE) if name.startswith("fl") else (SIGMOID, FULL)
    if name == "ce_ls_timm":
        layer, params = SOFTMAX, "label_smoothing: 0.1"
    inner = name == "inner_scores_bce"
    verdict = crosscheck(
        model,
        layer,
        bottoms=["score" if inner else "x", "t"],
        loss="loss",
        gradients={"dW": "W"} if inner else {"dx": "x"},
        param_str=params,
    )
    (diagnosis,) = verdict.diagnoses
    assert not verdict.agrees and diagnosis.text.startswith(says) and diagnosis.text.endswith(softly)


def test_two_mistakes_of_which_one_shows_on_extreme_scores_alone():
    verdict = judged(focal(LOGS, alpha=0.75)(), FOCAL, NONE)
    (diagnosis,) = verdict.diagnoses
    assert diagnosis.departures == ("alpha-swapped",)
    assert diagnosis.text.endswith(
        f"{SOFTLY}, but for extreme scores (sigmoid, then log: not finite beyond a score of 17)"
    )


def test_soft_targets_that_are_weighed_otherwise_are_the_only_fault():
    verdict = judged(focal(SIDES)(), FOCAL, NONE)
    assert [one.text for one in verdict.diagnoses] == [
        f"{name} agrees on targets of 0 and 1: soft targets are weighed otherwise" for name in ("loss", "x.diff")
    ]
