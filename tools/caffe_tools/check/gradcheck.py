"""The backward of a Python layer against central differences of its forward, in float64, and against what Caffe asks of
a backward besides: it sets its bottoms' diffs, adds to those of its learnable blobs, and leaves all else alone."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from caffe_tools.check.agreement import Agreement, Judge
from caffe_tools.check.checked_layer import CheckedLayer, make_layer
from caffe_tools.check.trial import Trial, Values, apart
from caffe_tools.check.written_diff import WrittenDiff
from caffe_tools.errors import NetError
from caffe_tools.net.draw import Reader
from caffe_tools.net.python_layer import PythonLayer

__all__ = ["GradientRow", "gradcheck", "make_layer"]

MOST_TOPS = 8
"""So many are tried where a layer does not say how many it has."""


@dataclass(frozen=True)
class GradientRow:
    """One bottom (``bottom[0]``) or learnable blob (``blobs[0]``), and its element whose gradient is furthest from the
    central difference; or a top (``top[0]``) whose diff is not left alone."""

    blob: str
    shape: tuple[int, ...]
    where: tuple[int, ...]
    backward: float
    difference: float
    relative: float
    agrees: bool
    note: str = ""

    def as_json(self) -> dict:
        return asdict(self)


def gradcheck(
    layer: CheckedLayer,
    shapes: Sequence[tuple[int, ...]],
    given: Mapping[int, np.ndarray] | None = None,
    seed: int = 0,
    *,
    labels: Mapping[int, int] | None = None,
    without_gradient: Collection[int] = (),
    tops: int | None = None,
) -> list[GradientRow]:
    """One row for each bottom that the layer has a gradient for, and for each of its learnable blobs.

    The bottoms are drawn (labels as the layer's parameters say) unless ``given``. ``labels`` says of bottoms how many
    classes they hold, from 0 on. No gradient is asked of labels, of bottoms that are given as integers, of those in
    ``without_gradient``, nor of those whose gradient the layer refuses. ``tops`` is the number of tops, which is else
    found by trying. Backward starts from random diffs of the tops; a value agrees within a millionth of the blob's
    largest gradient, or within what the layer's own rounding explains.

    Raises NetError for a layer that fails, and for one that gives other numbers each time.
    """
    _check_number_of_bottoms(layer, len(shapes))
    for what, indices in (("labels", labels or ()), ("no gradient", without_gradient)):
        for index in indices:
            if not 0 <= index < len(shapes):
                raise NetError(f"{what} in bottom[{index}], but the bottoms are 0 to {len(shapes) - 1}")
    integers = {index: array for index, array in (given or {}).items() if np.asarray(array).dtype.kind in "iub"}
    silent = {*integers, *(labels or {}), *without_gradient}
    with apart():
        return _Check(layer, shapes, given or {}, labels or {}, silent, seed).rows(tops)


def _least(layer: PythonLayer, what: str, default: int) -> int:
    """How many bottoms or tops the layer cannot do without, where it declares them."""
    names = getattr(layer.layer_class, what, None)
    return default if not names else sum(not name.startswith("[") for name in names)


def _check_number_of_bottoms(layer: PythonLayer, number: int) -> None:
    names = getattr(layer.layer_class, "bottoms", None)
    if names is not None and not _least(layer, "bottoms", 0) <= number <= len(names):
        raise NetError(
            f"{layer.layer_class.__name__} takes the bottoms {', '.join(names) or 'none'}, but {number} shapes are"
            " given: give --bottom once for each"
        )


def _with_hint(error: NetError) -> NetError:
    """What may be wrong with an index: the drawn bottoms are no labels."""
    hint = " (a bottom that holds labels is named by --label INDEX=CLASSES)"
    return NetError(f"{error}{hint}") if "IndexError" in str(error) else error


class _Check:
    def __init__(
        self,
        layer: CheckedLayer,
        shapes: Sequence[tuple[int, ...]],
        given: Mapping[int, np.ndarray],
        labels: Mapping[int, int],
        silent: Collection[int],
        seed: int,
    ) -> None:
        self.layer, self.shapes, self.given, self.labels, self.seed = layer, shapes, given, dict(labels), seed
        self.random = np.random.default_rng(seed)
        self.asked = [layer.allow_force_backward(i) and i not in silent for i in range(len(shapes))]

    def rows(self, tops: int | None) -> list[GradientRow]:
        self._make_trial(tops)
        self.top_diffs = self._draw_top_diffs()
        self._leave_out_what_is_refused()
        before, others = self._junk(), self._junk()
        self.trial.settle(self.top_diffs, before, self.asked)
        diffs = self.trial.backward(self.top_diffs, before, self.asked)
        again = self.trial.backward(self.top_diffs, others, self.asked)
        wanted = [f"bottom[{i}]" for i, asked in enumerate(self.asked) if asked]
        wanted += [name for name in self.trial.values if name.startswith("blobs")]
        rows = [
            self._row(name, WrittenDiff(name, diffs[name], before[name], again[name], others[name])) for name in wanted
        ]
        for name, what in self.trial.wrote.items():
            rows = _with_fault(rows, name, self._shape(name), what)
        return rows

    # What it runs on --------------------------------------------------------------------------------------------------

    def _make_trial(self, tops: int | None) -> None:
        """With as many tops as the layer takes; where it fails on all, with labels where they may be."""
        least = _least(self.layer, "tops", 0)
        counts = [tops] if tops else [least] if least else range(1, MOST_TOPS + 1)
        first: NetError | None = None
        for labels in (self.labels, self._likely_labels()):
            for count in counts:
                try:
                    self.trial = self._drawn(count, labels)
                    if not self._is_finite(self.trial):
                        likely = self._drawn(count, labels, probabilities=True)
                        self.trial = likely if self._is_finite(likely) else self.trial
                except NetError as error:
                    first = first or _with_hint(error)
                else:
                    self.labels = labels
                    self.asked = [asked and i not in labels for i, asked in enumerate(self.asked)]
                    return
        assert first is not None
        raise first

    @staticmethod
    def _is_finite(trial: Trial) -> bool:
        return all(np.isfinite(data).all() for data in trial.forward())

    def _drawn(self, tops: int, labels: Mapping[int, int], probabilities: bool = False) -> Trial:
        """The bottoms drawn; with ``probabilities`` between 0 and 1, for a layer that takes their logarithm."""
        random = np.random.default_rng(self.seed)
        trial = Trial(self.layer.another, self.shapes, tops, self.seed)
        for i, bottom in enumerate(trial.bottoms):
            if i in self.given:
                trial.values[f"bottom[{i}]"][...] = self.given[i]
            elif i in labels:
                trial.values[f"bottom[{i}]"][...] = random.integers(0, labels[i], bottom.shape)
            elif probabilities:
                trial.values[f"bottom[{i}]"][...] = random.uniform(0.05, 0.95, bottom.shape).astype(np.float32)
            else:
                # as Caffe's blobs would hold it, so that a layer in float32 begins with no rounding
                drawn = Reader(trial.layer, i, trial.bottoms[0].shape).draw(bottom.shape, random)
                trial.values[f"bottom[{i}]"][...] = np.asarray(drawn, np.float32)
        return trial

    def _likely_labels(self) -> dict[int, int]:
        """Bottoms behind the first that are smaller than it: labels of its channels."""
        scores = self.shapes[0] if self.shapes else ()
        classes = scores[1] if len(scores) > 1 else 2
        smaller = [i for i, shape in enumerate(self.shapes) if i and math.prod(shape) < math.prod(scores)]
        return {i: classes for i in smaller if i not in self.given} | self.labels

    def _draw_top_diffs(self) -> list[np.ndarray]:
        return [self.random.normal(size=data.shape).astype(np.float32).astype(float) for data in self.trial.forward()]

    def _junk(self) -> Values:
        """What may stand in diffs when backward begins."""
        return {name: self.random.normal(size=value.shape) for name, value in self.trial.values.items()}

    def _leave_out_what_is_refused(self) -> None:
        """Ask no gradient toward a bottom where that makes backward fail: such a bottom holds labels or targets."""
        error = self._fails(self.asked)
        if error is None:
            return
        wanted = [i for i, asked in enumerate(self.asked) if asked]
        without_one = [[asked and i != left for i, asked in enumerate(self.asked)] for left in wanted]
        alone = [[i == only for i in range(len(self.asked))] for only in wanted]
        allowed = next((asked for asked in without_one if self._fails(asked) is None), None)
        if allowed is None:
            works = [asked for asked in alone if self._fails(asked) is None]
            allowed = [any(column) for column in zip(*works, strict=True)]
            if not any(allowed) or self._fails(allowed) is not None:
                raise error
        if not any(allowed):
            raise error
        refused = [i for i in wanted if not allowed[i]]
        self.asked = allowed
        labels = {i: classes for i, classes in self._likely_labels().items() if i in refused} | self.labels
        if labels != self.labels:
            self.labels = labels
            self._make_trial(len(self.trial.tops))

    def _fails(self, asked: Sequence[bool]) -> NetError | None:
        try:
            self.trial.backward(self.top_diffs, self._junk(), asked)
        except NetError as error:
            return error
        return None

    # Judged -----------------------------------------------------------------------------------------------------------

    def _row(self, name: str, diff: WrittenDiff) -> GradientRow:
        found = self._judge(name, diff.gradient, self.top_diffs)
        fault = diff.fault(found.is_nothing)
        if diff.is_untouched and fault and name.startswith("bottom") and name != "bottom[0]":
            fault += f" (--no-gradient {name[7:-1]} says that it has none)"
        elif not found.agrees and not diff.is_untouched:
            fault = "; ".join(filter(None, [fault, self._fault_of_top_diffs(name, diff)]))
        if not fault and found.agrees and name.startswith("bottom"):
            fault = self._fault_alone(name, diff)
        if fault and found.agrees and not diff.is_untouched:
            fault += "; the numbers are right"
        return GradientRow(
            name,
            self._shape(name),
            found.where,
            found.backward,
            found.difference,
            found.relative,
            found.agrees and not fault,
            fault or found.note,
        )

    def _judge(self, name: str, gradient: np.ndarray, top_diffs: Sequence[np.ndarray]) -> Agreement:
        """Whether it is the gradient of Σ top.diff · top."""
        tops = self.trial.forward()
        size = sum(float(np.abs(diff * data).sum()) for diff, data in zip(top_diffs, tops, strict=True))
        before = self._junk()

        def loss() -> float:
            parts = zip(top_diffs, self.trial.forward(), strict=True)
            return sum(float(np.sum(np.where(diff == 0, 0, diff * data))) for diff, data in parts)

        def gradient_again() -> np.ndarray:
            return self.trial.backward(top_diffs, before, self.asked)[name]

        rounded = self._rounded(name, tops, top_diffs)
        return Judge(self.trial.values[name], loss, gradient_again, size, rounded, self.random).judge(gradient)

    def _rounded(self, name: str, tops: Sequence[np.ndarray], top_diffs: Sequence[np.ndarray]) -> float:
        """What tops that are float32 by their values are rounded by, where the blob reaches them."""
        data = self.trial.values[name]
        kept = data.copy()
        data *= 1 + 1e-3 * self.random.random(data.shape)
        largest = 0.0
        for diff, here, moved in zip(top_diffs, tops, self.trial.forward(), strict=True):
            rounded = (moved != here) & (moved.astype(np.float32) == moved)
            largest = max(largest, float(np.abs(diff * here)[rounded].max(initial=0)))
        data[...] = kept
        return 4 * 2.0**-24 * largest

    def _fault_of_top_diffs(self, name: str, diff: WrittenDiff) -> str:
        """Whether the gradient takes no notice of a top's diff, and is right but for that."""
        ignored = []
        for i in range(len(self.top_diffs)):
            others = [2.5 * one + 1 if k == i else one for k, one in enumerate(self.top_diffs)]
            if diff.is_same(self.trial.backward(others, {**self._junk(), name: diff.before}, self.asked)[name]):
                ignored.append(i)
        if not ignored:
            return ""
        which = "the diff of its top" if len(self.top_diffs) == 1 else f"the diff of top {', '.join(map(str, ignored))}"
        for value, says in (
            (
                1.0,
                f"it takes no notice of {which}, that is of loss_weight: this is the only fault, it is right where"
                " that is 1",
            ),
            (0.0, f"it takes no notice of {which}: this is the only fault, it is right where nothing reads that top"),
        ):
            seeds = [np.full_like(one, value) if k in ignored else one for k, one in enumerate(self.top_diffs)]
            if self._judge(name, diff.gradient, seeds).agrees:
                return says
        return f"it takes no notice of {which}, that is of loss_weight, and is wrong besides"

    def _fault_alone(self, name: str, diff: WrittenDiff) -> str:
        """Whether the gradient is another where propagate_down asks for it alone."""
        if sum(self.asked) < 2:
            return ""
        asked = [f"bottom[{i}]" == name for i in range(len(self.asked))]
        try:
            alone = self.trial.backward(self.top_diffs, {**self._junk(), name: diff.before}, asked)[name]
        except NetError as error:
            return f"backward fails where propagate_down asks for it alone: {error}"
        return (
            "" if diff.is_same(alone) else "backward gives it another gradient where propagate_down asks for it alone"
        )

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.trial.values[name].shape if name in self.trial.values else self.top_diffs[int(name[4:-1])].shape


def _with_fault(rows: Iterable[GradientRow], name: str, shape: tuple[int, ...], what: str) -> list[GradientRow]:
    """The rows, with a fault of the layer told in that of the blob, or in one more."""
    rows = list(rows)
    for i, row in enumerate(rows):
        if row.blob == name:
            note = what if row.agrees or not row.note else f"{row.note}; {what}"
            rows[i] = replace(row, agrees=False, note=note)
            return rows
    return [*rows, GradientRow(name, shape, (), 0.0, 0.0, 0.0, False, what)]
