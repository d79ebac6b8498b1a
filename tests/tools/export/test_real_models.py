"""Real models with real weights: exported with open dims, against the outputs that a real Caffe recorded."""

import numpy as np
import onnx
import onnxruntime
import pytest

from caffe_tools.export.export import ExportOptions, export, save
from caffe_tools.net.net import TEST, Net

# model → its recorded cases, and whether it takes images of any size
MODELS = {
    "mnist_lenet": (["digits"], False),
    "mtcnn_det1": (["120x120", "47x60"], True),
    "mtcnn_det2": (["crops"], False),
    "mtcnn_det3": (["crops"], False),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_real_model_runs_with_other_sizes_and_gives_caffes_numbers(name, shared, tmp_path):
    cases, takes_any_size = MODELS[name]
    folder = shared / "models"
    net = Net(folder / f"{name}.prototxt", TEST, weights=folder / f"{name}.caffemodel")
    save(export(net, ExportOptions(dynamic_batch=True, dynamic_size=takes_any_size)), tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    outputs = [value.name for value in session.get_outputs()]
    for case in cases:
        recorded = np.load(shared / "golden" / f"model_{name}_{case}.npz")
        assert recorded["in/data"].shape != net.blobs["data"].shape
        for output, found in zip(outputs, session.run(None, {"data": recorded["in/data"]}), strict=True):
            wanted = recorded[f"data/{output}"]
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max(), err_msg=case)
