"""The same net in OpenCV's dnn module: what ``check --against opencv`` compares with.

Source: OpenCV 4 modules/dnn/src/caffe/caffe_importer.cpp, modules/dnn/src/layers/prior_box_layer.cpp,
detection_output_layer.cpp.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from caffe_tools import prototxt
from caffe_tools.binaryproto import caffemodel
from caffe_tools.check.flat_net import flat_net, makes_data, what_goes_in
from caffe_tools.errors import NetError, one_line
from caffe_tools.net.keys import DATA, IN, PARAM, Arrays
from caffe_tools.net.layer import PlacedLayer
from caffe_tools.net.net import Net
from caffe_tools.net.standard_layer import StandardLayer


class PeerRun(dict[str, np.ndarray]):
    """Arrays by their keys, with what is to be said of them."""

    def __init__(self, arrays: Mapping[str, np.ndarray], notes: Sequence[str]) -> None:
        super().__init__(arrays)
        self.notes = list(notes)


def run_opencv(net: Net, fed: Arrays) -> PeerRun:
    """Forward in OpenCV's dnn module (opencv-python before 5), fed with ``in/…`` and ``param/…``: ``data/<blob>``.

    Of the blobs that in-place layers change the final value counts. Raises NetError where OpenCV is not there, is too
    new, or refuses the net; in TRAIN phase, which OpenCV does not know.
    """
    if net.phase != "TEST":
        raise NetError("OpenCV runs nets in TEST phase alone: give --phase TEST")
    try:
        import cv2
    except ImportError:
        raise NetError("OpenCV is not installed: pip install 'caffe-layers[opencv]'") from None
    if int(cv2.__version__.split(".")[0]) >= 5:
        raise NetError(f"OpenCV {cv2.__version__} has no Caffe importer any more: install opencv-python before 5")
    with tempfile.TemporaryDirectory() as folder:
        text, weights = Path(folder) / "net.prototxt", Path(folder) / "net.caffemodel"
        text.write_text(prototxt.to_text(flat_net(net)), encoding="utf-8")
        parts = PARAM.of(fed)  # the forward pass may have changed the net's own
        placed_ = [placed for placed in net.placed if not makes_data(placed)]
        blobs = [(placed.name, placed.layer.type, [parts[name] for name in placed.learnable]) for placed in placed_]
        caffemodel.write(weights, blobs, name=net.name)
        try:
            peer = cv2.dnn.readNetFromCaffe(str(text), str(weights))
            # else what feeds a Concat is computed in the Concat's memory, and the blobs asked for are never written
            peer.enableFusion(False)
            for name, array in IN.of(what_goes_in(net, fed)).items():
                peer.setInput(np.ascontiguousarray(array, np.float32), name)
            makers = _makers(net)
            outputs = peer.forward(list(makers.values()))
        except cv2.error as error:
            raise NetError(f"OpenCV {cv2.__version__} refuses the net: {one_line(error)}") from None
    arrays = dict(zip(makers, outputs, strict=True))
    notes = []
    for placed in net.placed:
        for name, top in zip(placed.spec.tops, placed.tops, strict=True):
            if placed.spec.type == "DetectionOutput" and name in arrays:
                arrays[name] = in_caffes_order(arrays[name], placed.bottoms[0].shape[0])
            elif placed.spec.type == "PriorBox" and name in arrays:
                notes += _clips(placed, top.data, arrays[name])
    return PeerRun(DATA.keyed(arrays), notes)


def in_caffes_order(found: np.ndarray, images: int) -> np.ndarray:
    """DetectionOutput's rows as Caffe gives them: by image, label and falling score, or one for each image where
    nothing is found. OpenCV orders them by score alone, and fills up with zeros to keep_top_k rows."""
    rows = found.reshape(-1, 7)
    rows = rows[rows.any(axis=1)]
    if not len(rows):
        rows = np.full((images, 7), -1, found.dtype)
        rows[:, 0] = np.arange(images)
    order = np.lexsort((-rows[:, 2], rows[:, 1], rows[:, 0]))
    return rows[order].reshape(1, 1, -1, 7)


def _clips(placed: PlacedLayer, ours: np.ndarray, theirs: np.ndarray) -> list[str]:
    """Why the boxes differ, where nothing but OpenCV's default does it."""
    if not isinstance(placed.layer, StandardLayer) or ours.size != theirs.size:
        return []
    if "clip" in placed.layer.layer.prior_box_param.given:
        return []
    boxes, clipped = ours.reshape(2, -1)[0], theirs.reshape(2, -1)[0]
    if np.array_equal(boxes, boxes.clip(0, 1)) or not np.allclose(boxes.clip(0, 1), clipped, atol=1e-5):
        return []
    return [
        f"layer {placed.name!r} (PriorBox) does not give clip: Caffe's default is false, OpenCV's is true, so that it"
        " cuts the boxes that reach beyond the image; give clip to have both do the same"
    ]


def _makers(net: Net) -> dict[str, str]:
    """For each computed blob with one top's layer behind it, the last layer that writes it (OpenCV's output name)."""
    makers: dict[str, str] = {}
    for spec in (placed.spec for placed in net.placed):
        if not spec.is_inserted and spec.bottoms and len(spec.tops) == 1:
            makers[spec.tops[0]] = spec.name
    return makers
