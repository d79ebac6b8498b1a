"""Run one net in a real Caffe: ``python caffe_peer.py ARGUMENTS.json``.

It runs in the Caffe's own Python (2.7 too), which needs caffe and numpy and nothing of this project but the layers that
the net uses, and speaks with the caller through an ``.npz`` each way: ``in/...``, ``param/...`` and ``top_diff/...`` go
in; ``data/...``, ``diff/...``, ``pdiff/...`` and what the forward pass changed, ``param_after/...``, come back. What it
is doing stands in the file ``stage``, what it cannot do in a line that begins with CAFFE PEER.

The arguments: net, phase, inputs, outputs, stage, backward; ours, the folder that holds nothing but the project's
layers; users, the folders of the user's modules; and modules, those that the net's Python layers name.
"""

import json
import os
import sys

SAYS = "CAFFE PEER: "


def main(arguments):
    here = os.path.dirname(os.path.abspath(__file__))
    # this file's folder is no place to import from, nor may the user's modules hide what Caffe itself imports
    own = [folder for folder in sys.path if os.path.abspath(folder or os.curdir) != here]
    sys.path[:] = own + [folder for folder in arguments["users"] if folder not in own]
    stage = Stage(arguments["stage"])
    stage.begin("importing Caffe")
    caffe, np = import_caffe()
    users = [folder for folder in arguments["users"][:1] if folder not in own]
    sys.path[:] = [arguments["ours"]] + users + [folder for folder in sys.path if folder not in users]
    stage.begin("importing the net's modules")
    for module in arguments["modules"]:
        import_users(module)
    stage.begin("building the net")
    caffe.set_mode_cpu()
    net = caffe.Net(arguments["net"], getattr(caffe, arguments["phase"]))
    with np.load(arguments["inputs"], allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    results = run(net, arrays, arguments["backward"], stage)
    np.savez(arguments["outputs"], **results)


class Stage:
    def __init__(self, path):
        self.path = path

    def begin(self, what):
        with open(self.path, "w") as file:
            file.write(what)


def fail(text):
    sys.exit(SAYS + text)


def import_caffe():
    try:
        import numpy
    except ImportError as error:
        fail("it has no numpy (%s), without which there is no Caffe" % error)
    try:
        import caffe
    except ImportError as error:
        missing = str(error).replace("'", "").replace(";", "").split()
        if "caffe" in missing:
            fail("no Caffe")
        fail("import caffe fails with %s: %s" % (type(error).__name__, error))
    except Exception as error:
        fail("import caffe fails with %s: %s" % (type(error).__name__, error))
    if not hasattr(caffe, "Net"):
        fail("the module 'caffe' that it imports (%s) is not Caffe: it has no Net" % getattr(caffe, "__file__", "?"))
    return caffe, numpy


def import_users(name):
    try:
        __import__(name)
    except Exception as error:
        fail(
            "cannot import the net's module '%s': %s: %s (it looks in the working directory, in PYTHONPATH, in the"
            " net's folder and in its own packages)" % (name, type(error).__name__, error)
        )


def run(net, arrays, backward, stage):
    for key, array in arrays.items():
        kind, _, name = key.partition("/")
        if kind == "in":
            net.blobs[name].data[...] = array
        elif kind == "param":
            layer, _, index = name.rpartition("/")
            net.params[layer][int(index)].data[...] = array
    before = {key: blob.data.copy() for key, blob in learnable(net)}
    stage.begin("running forward")
    net.forward()
    results = {"data/" + name: blob.data.copy() for name, blob in net.blobs.items()}
    for key, blob in learnable(net):
        if before[key].tobytes() != blob.data.tobytes():
            results["param_after/" + key] = blob.data.copy()
    if backward:
        for _, blob in learnable(net):
            blob.diff[...] = 0
        for key, array in arrays.items():
            if key.startswith("top_diff/"):
                net.blobs[key[len("top_diff/") :]].diff[...] = array
        stage.begin("running backward")
        net.backward()
        results.update(("diff/" + name, blob.diff.copy()) for name, blob in net.blobs.items())
        results.update(("pdiff/" + key, blob.diff.copy()) for key, blob in learnable(net))
    return results


def learnable(net):
    """("layer/index", blob) of every learnable blob."""
    for layer, blobs in net.params.items():
        for index in range(len(blobs)):
            yield "%s/%d" % (layer, index), blobs[index]


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        main(json.load(file))
