"""The referee on exported one-layer nets that are wrong on purpose: each is rejected, and its mistake named."""

from dataclasses import dataclass, field

import onnx
import pytest

import wrong_layers
from caffe_tools.export.export import ExportOptions, export
from caffe_tools.referee.referee import crosscheck
from layer_cases import LOSSES, Case
from nets import inputs, layer, net_of

SHAPE = (7, 5)
WEIGHTS = "class_weight: [0.5, 1, 2, 0.25, 3]"


def exported(layer_name, params="", labels="index", module="caffe_layers", loss_weight=1, shape=SHAPE, weights=False):
    """A net of one loss layer as a training graph: inputs x, t (and w), outputs loss and x.diff."""
    positions = shape[:1] + shape[2:]
    shapes = {"x": shape, "t": positions if labels == "index" else shape} | ({"w": positions} if weights else {})
    text = inputs(**shapes) + layer(
        "loss",
        "Python",
        " ".join(shapes),
        "loss",
        f'loss_weight: {loss_weight} python_param {{ module: "{module}" layer: "{layer_name}" param_str: "{params}" }}',
    )
    net = net_of(text, allow_modules=["wrong_layers"])
    return export(net, ExportOptions(training=True, input_gradients=True, dynamic_batch=True)).model


def standard(type_, params="", labels="index", shape=SHAPE):
    """The same of a standard layer of Caffe."""
    text = inputs(x=shape, t=shape[:1] if labels == "index" else shape) + layer("loss", type_, "x t", "loss", params)
    net = net_of(text)
    return export(net, ExportOptions(training=True, input_gradients=True, dynamic_batch=True)).model


def with_gradient_of(model, other):
    """``model`` with the gradient of ``other`` in place of its own."""
    inlined, other = (onnx.inliner.inline_local_functions(one) for one in (model, other))
    prefixed = onnx.compose.add_prefix(other, "other/", rename_inputs=False)
    graph = inlined.graph
    graph.node.extend(prefixed.graph.node)
    graph.initializer.extend(prefixed.graph.initializer)
    kept = [output for output in graph.output if output.name != "x.diff"]
    del graph.output[:]
    graph.output.extend([*kept, *(o for o in prefixed.graph.output if o.name == "other/x.diff")])
    return inlined


@dataclass
class Mutant:
    """A wrong graph, the layer and parameters that it is judged by, and the names of what is wrong with it."""

    graph: object
    judge: str
    params: str
    names: set
    tensors: set = field(default_factory=lambda: {"loss", "x.diff"})
    """Those that are wrong."""
    loss_weight: float = 1.0
    gradient: str = "x.diff"


SOFTMAX, SIGMOID, FOCAL = "SoftmaxLossLayer", "SigmoidCrossEntropyLossLayer", "SigmoidFocalLossLayer"
SOFTMAX_FOCAL = "SoftmaxFocalLossLayer"


def of_other_params(judge, params, wrong, names, labels="index", **keywords):
    """The layer itself with other parameters."""
    return lambda: Mutant(exported(judge, wrong, labels, **keywords), judge, params, names)


def gradient_of(judge, params, wrong, names, labels="index", weights=(False, False)):
    """Loss by the right parameters, gradient by the wrong ones."""

    def make():
        right = exported(judge, params, labels, weights=weights[0])
        graph = with_gradient_of(right, exported(judge, wrong, labels, weights=weights[1]))
        return Mutant(graph, judge, params, names, {"other/x.diff"}, gradient="other/x.diff")

    return make


TRIED_WRONG_LAYERS = set()


def wrong_layer(name, judge, params, names, labels="index", tensors=("loss", "x.diff")):
    """A layer of wrong_layers.py."""
    TRIED_WRONG_LAYERS.add(name)
    return lambda: Mutant(exported(name, params, labels, "wrong_layers"), judge, params, names, set(tensors))


MUTANTS = {
    "the batch size for the valid positions": of_other_params(
        SOFTMAX, "ignore_label: 255", "ignore_label: 255, normalization: BATCH_SIZE", {"normalization=BATCH_SIZE"}
    ),
    "all positions for the batch size": of_other_params(
        SOFTMAX,
        "ignore_label: 255, normalization: BATCH_SIZE",
        "ignore_label: 255, normalization: FULL",
        {"normalization=FULL"},
        shape=(7, 5, 3),
    ),
    "the valid positions for the sum of weights": of_other_params(
        SOFTMAX, f"{WEIGHTS}, normalization: WEIGHT", f"{WEIGHTS}, normalization: VALID", {"normalization=VALID"}
    ),
    "the sum of weights for the valid positions": of_other_params(
        SOFTMAX, WEIGHTS, f"{WEIGHTS}, normalization: WEIGHT", {"normalization=WEIGHT"}
    ),
    "a divisor that the gradient lacks": gradient_of(SOFTMAX, "", "normalization: NONE", {"normalization=NONE"}),
    "class weights left out": of_other_params(SOFTMAX, WEIGHTS, "", {"class_weight-left-out"}),
    "class weights applied twice": of_other_params(
        SOFTMAX, WEIGHTS, "class_weight: [0.25, 1, 4, 0.0625, 9]", {"class_weight-twice"}
    ),
    "smoothing that the gradient lacks": gradient_of(SOFTMAX, "label_smoothing: 0.2", "", {"label_smoothing-left-out"}),
    "ignored labels counted as class 0": wrong_layer(
        "IgnoredAsClass0", SOFTMAX, "ignore_label: 255, normalization: NONE", {"ignored-counted-as-class-0"}
    ),
    "ignored labels counted as class 0, in the divisor too": wrong_layer(
        "IgnoredAsClass0", SOFTMAX, "ignore_label: 255", {"ignored-counted-as-class-0", "normalization=BATCH_SIZE"}
    ),
    "the gradient of ignored positions kept": wrong_layer(
        "GradientOfIgnored",
        SOFTMAX,
        "ignore_label: 255, normalization: NONE",
        {"ignored-in-gradient"},
        tensors={"x.diff"},
    ),
    "the mean over the classes": wrong_layer("MeanOverClasses", SOFTMAX, "", {"mean-over-classes"}),
    "the gradient's sign": wrong_layer("NegatedGradient", SOFTMAX, "", {"sign"}, tensors={"x.diff"}),
    "a loss weight applied twice": lambda: Mutant(
        exported(SOFTMAX, loss_weight=0.16), SOFTMAX, "", {"loss_weight-applied"}, {"x.diff"}, loss_weight=0.4
    ),
    "a loss weight not applied": lambda: Mutant(
        exported(SOFTMAX), SOFTMAX, "", {"loss_weight-left-out"}, {"x.diff"}, loss_weight=0.4
    ),
    "the softmax over the wrong axis": of_other_params(
        SOFTMAX, "target: distribution", "target: distribution, axis: 2", {"axis=2"}, "dense", shape=(7, 5, 5)
    ),
    "labels of the wrong axis": of_other_params(SOFTMAX, "", "axis: 2", {"axis=2"}, shape=(7, 5, 5)),
    "the softmax applied twice": wrong_layer("SoftmaxTwice", SOFTMAX, "", {"softmax-twice"}),
    "a multi-label target not divided by its labels": of_other_params(
        SOFTMAX, "target: multi_label", "target: distribution", {"target=distribution"}, "dense"
    ),
    "the weights of bottom 2 left out of the gradient": gradient_of(
        SOFTMAX, "normalization: NONE", "normalization: NONE", {"weights-left-out"}, weights=(True, False)
    ),
    "pos_weight left out": of_other_params(
        SIGMOID, "pos_weight: [1, 2, 3, 4, 5]", "", {"pos_weight-left-out"}, "dense"
    ),
    "pos_weight on both signs": of_other_params(
        SIGMOID, "pos_weight: [1, 2, 3, 4, 5]", "class_weight: [1, 2, 3, 4, 5]", {"pos_weight-on-both-signs"}, "dense"
    ),
    "elements for the batch size": of_other_params(
        SIGMOID, "ignore_label: -1", "ignore_label: -1, normalization: VALID", {"normalization=VALID"}, "dense"
    ),
    "smoothing left out of a sigmoid loss": of_other_params(
        SIGMOID, "label_smoothing: 0.1", "", {"label_smoothing-left-out"}, "dense"
    ),
    "the background rule": of_other_params(
        SIGMOID, "target: index", "target: index, background_label: 5", {"background_label=5"}
    ),
    "alpha and 1 - alpha swapped": of_other_params(
        FOCAL, "normalization: POSITIVES", "normalization: POSITIVES, alpha: 0.75", {"alpha-swapped"}, "dense"
    ),
    "alpha on both signs": of_other_params(
        FOCAL, "alpha: 0.4", "alpha: [0.4, 0.4, 0.4, 0.4, 0.4]", {"alpha-on-both-signs"}, "dense"
    ),
    "alpha left out": of_other_params(FOCAL, "", "alpha: null", {"alpha-left-out"}, "dense"),
    "alpha that the gradient lacks": gradient_of(FOCAL, "", "alpha: null", {"alpha-left-out"}, "dense"),
    "gamma's term missing from the gradient": wrong_layer(
        "FocalWithoutGammaTerm",
        FOCAL,
        "normalization: NONE",
        {"gamma-term-missing-from-gradient"},
        "dense",
        tensors={"x.diff"},
    ),
    "the modulating factor that the gradient lacks": gradient_of(FOCAL, "", "gamma: 0", {"gamma=0"}, "dense"),
    "another gamma": of_other_params(FOCAL, "", "gamma: 1", {"gamma=1"}, "dense"),
    "the sigmoid's derivative once too often": wrong_layer(
        "SigmoidDerivativeTwice", FOCAL, "", {"sigmoid-derivative-twice"}, "dense", tensors={"x.diff"}
    ),
    "targets rounded": wrong_layer("HardTargets", FOCAL, "", {"targets-rounded"}, "dense"),
    "the batch size for the positives, and alpha swapped": of_other_params(
        FOCAL, "normalization: POSITIVES", "alpha: 0.75", {"alpha-swapped", "normalization=BATCH_SIZE"}, "dense"
    ),
    "the divisor of the positives missing from the gradient": gradient_of(
        FOCAL, "normalization: POSITIVES", "normalization: NONE", {"normalization=NONE"}, "dense"
    ),
    "alpha for every class": of_other_params(SOFTMAX_FOCAL, "", "background_label: null", {"alpha-for-every-class"}),
    "the gradient of a well-known fork": wrong_layer(
        "FocalByChannel", SOFTMAX_FOCAL, "background_label: null", {"alpha-by-channel-in-gradient"}, tensors={"x.diff"}
    ),
    "Caffe's own floor of probabilities": lambda: Mutant(
        standard("SoftmaxWithLoss"), SOFTMAX, "", {"floor=1.17549e-38"}, {"loss"}
    ),
    "Caffe's own sigmoid loss, normalised by VALID": lambda: Mutant(
        standard("SigmoidCrossEntropyLoss", "loss_param { normalization: VALID }", "dense"),
        SIGMOID,
        "",
        {"normalization=VALID"},
    ),
}


def judge(mutant):
    inputs_ = [value.name for value in mutant.graph.graph.input]
    return crosscheck(
        mutant.graph,
        mutant.judge,
        bottoms=["x", "t", "w"] if "w" in inputs_ else ["x", "t"],
        loss="loss",
        gradients={mutant.gradient: "x"},
        param_str=mutant.params,
        loss_weight=mutant.loss_weight,
    )


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_graph_is_rejected_and_its_mistake_named(name):
    mutant = MUTANTS[name]()
    verdict = judge(mutant)
    assert not verdict.agrees
    assert {row.tensor for row in verdict.rows if row.counts and not row.agrees} == mutant.tensors
    assert [set(diagnosis.departures) for diagnosis in verdict.diagnoses] == [mutant.names]


@pytest.mark.parametrize("layer", LOSSES)
def test_a_wrong_divisor_of_any_loss_is_named(layer):
    labels = "index" if Case(layer).target == "index" else "dense"
    mutant = of_other_params(layer, "", "normalization: NONE", {"normalization=NONE"}, labels)()
    assert [set(diagnosis.departures) for diagnosis in judge(mutant).diagnoses] == [mutant.names]


def test_every_wrong_layer_is_one_of_them():
    there = {name for name, thing in vars(wrong_layers).items() if getattr(thing, "__module__", "") == "wrong_layers"}
    assert {name for name in there if not name.startswith("_")} == TRIED_WRONG_LAYERS
