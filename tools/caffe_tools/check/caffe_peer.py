"""Run one net in a real Caffe: ``python caffe_peer.py ARGUMENTS.json``.

It runs in the Caffe's own Python (2.7 too), which needs caffe and numpy and nothing of this project, and speaks with
the caller through an ``.npz`` each way: ``in/...``, ``param/...`` and ``top_diff/...`` go in; ``data/...``,
``diff/...``, ``pdiff/...`` and ``param_after/...`` come back. The arguments: net, phase, inputs, outputs, backward, and
path, the folders to import from.
"""

import json
import sys

import numpy as np


def main(arguments):
    sys.path[:0] = arguments["path"]
    import caffe

    if not hasattr(caffe, "Net"):
        sys.exit("the module 'caffe' that %s imports is not Caffe (it has no Net)" % sys.executable)
    caffe.set_mode_cpu()
    net = caffe.Net(arguments["net"], getattr(caffe, arguments["phase"]))
    with np.load(arguments["inputs"], allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    for key, array in arrays.items():
        kind, _, name = key.partition("/")
        if kind == "in":
            net.blobs[name].data[...] = array
        elif kind == "param":
            layer, _, index = name.rpartition("/")
            net.params[layer][int(index)].data[...] = array
    net.forward()
    results = {"data/" + name: blob.data.copy() for name, blob in net.blobs.items()}
    results.update(("param_after/" + key, blob.data.copy()) for key, blob in learnable(net))
    if arguments["backward"]:
        for _, blob in learnable(net):
            blob.diff[...] = 0
        for key, array in arrays.items():
            if key.startswith("top_diff/"):
                net.blobs[key[len("top_diff/") :]].diff[...] = array
        net.backward()
        results.update(("diff/" + name, blob.diff.copy()) for name, blob in net.blobs.items())
        results.update(("pdiff/" + key, blob.diff.copy()) for key, blob in learnable(net))
    np.savez(arguments["outputs"], **results)


def learnable(net):
    """("layer/index", blob) of every learnable blob."""
    for layer, blobs in net.params.items():
        for index in range(len(blobs)):
            yield "%s/%d" % (layer, index), blobs[index]


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        main(json.load(file))
