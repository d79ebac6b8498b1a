"""Two runs of a net held against each other: as wholes, and where they differ layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx
import onnxruntime

from caffe_tools.check.by_itself import ByItself
from caffe_tools.check.compare import Difference, compare
from caffe_tools.check.judge import Judge, both_judged
from caffe_tools.check.reasons import Reasons
from caffe_tools.check.sides import Side, side_of
from caffe_tools.export.export import Exported
from caffe_tools.graph.session import run
from caffe_tools.net.keys import Arrays
from caffe_tools.net.net import Net
from caffe_tools.net.python_layer import PythonLayer
from caffe_tools.net.results import Results

MakeSession = Callable[[onnx.ModelProto], onnxruntime.InferenceSession]


@dataclass
class Comparison:
    """Compares sides of a net that has run. ``layers`` tells for a key which layer computes it, ``stored`` are the
    stored blobs as they were before, ``ours`` is the net's own run, and ``inside`` gives the side of the exported model
    with all that it computes on the way."""

    net: Net
    results: Results
    layers: Mapping[str, str]
    stored: Arrays
    ours: Side
    inside: Callable[[], Side]
    rtol: float
    atol: float

    def rows(self, expected: Side, found: Side) -> tuple[list[Difference], list[str]]:
        """A row for each array of ``expected``, and why the whole runs differ where each layer by itself agrees."""
        rows = compare(expected.arrays, found.arrays, self.layers, self.rtol, self.atol)
        if all(row.agrees for row in rows):
            return rows, []
        judged = [self._judged(rows, side, side is expected) for side in (expected, found)]
        rows = both_judged(*judged)
        sides = expected, found if found is self.ours else self.inside()
        return rows, Reasons(self.net, self.results, sides, {row.key: row for row in rows}, self.rtol).lines()

    def _judged(self, rows: Sequence[Difference], side: Side, is_reference: bool) -> list[Difference]:
        """The net's own run is what its layers give by themselves, if those of the user's Python give it twice."""
        is_ours = side is self.ours
        places = range(len(self.net.placed))
        judging = {place for place in places if not is_ours or isinstance(self.net.placed[place].layer, PythonLayer)}
        side = side if is_reference or is_ours else self.inside()
        alone = ByItself(self.net, self.results, side, self.stored)
        return Judge(alone, self.rtol, self.atol, is_reference, judging).judged(rows)


def run_inside(net: Net, results: Results, exported: Exported, fed: Arrays, make_session: MakeSession) -> Side:
    """The exported model run once more, with every result of every blob, and every gradient, as an output."""
    session = session_giving(exported, [*exported.inner_data.values(), *exported.inner_diffs.values()], make_session)
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, run(session, names, exported.feeds(fed), "the exported model"), strict=True))
    arrays = {key: found[name] for key, name in exported.outputs.items()}
    side = side_of("ONNX Runtime", net, results, arrays, fed)
    side.data = {result: found[name] for result, name in exported.inner_data.items()} | side.data
    side.diffs = {result: found[name] for result, name in exported.inner_diffs.items()} | side.diffs
    return side


def session_giving(exported: Exported, names: Sequence[str], make_session: MakeSession) -> onnxruntime.InferenceSession:
    """A session of the model that gives the values ``names`` besides its outputs."""
    outputs = exported.model.graph.output
    count = len(outputs)
    there = {output.name for output in outputs}
    for name in dict.fromkeys(names):
        if name not in there:
            outputs.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    try:
        return make_session(exported.model)
    finally:
        del outputs[count:]
