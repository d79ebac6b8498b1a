"""MultiBoxLoss against Caffe-SSD's algorithm, image by image and pair by pair, where the golden cases do not reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import box_oracle
from caffe_tools.errors import NetError
from one_layer import net_over

CLASSES, PRIORS, IMAGES = 3, 18, 3


def drawn(seed: int = 0, shared: bool = True, priors: int = PRIORS) -> dict[str, np.ndarray]:
    """Three images with 2, 0 and 3 ground truths, and a row that fills up."""
    random = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        low = random.uniform(-0.1, 0.6, (count, 2))
        return np.concatenate([low, low + random.uniform(0.15, 0.5, (count, 2))], axis=1)

    variances = np.tile([0.1, 0.1, 0.2, 0.2], priors)
    rows = np.zeros((6, 8))
    rows[:, 0] = [0, 0, 2, 2, 2, -1]
    rows[:, 1] = random.integers(1, CLASSES, 6)
    rows[:, 3:7] = boxes(6)
    rows[:, 7] = [0, 1, 0, 0, 1, 0]
    return {
        "code": random.normal(size=(IMAGES, priors * 4 * (1 if shared else CLASSES))).astype(np.float32),
        "scores": random.normal(size=(IMAGES, priors * CLASSES)).astype(np.float32) * 2,
        "priors": np.stack([boxes(priors).reshape(-1), variances])[None].astype(np.float32),
        "truth": rows[None, None].astype(np.float32),
    }


# The definition ------------------------------------------------------------------------------------------------------


@dataclass
class Settings:
    shared: bool = True
    each: bool = True
    overlap: float = 0.5
    by_prior: bool = True
    difficult: bool = True
    ratio: float = 3.0
    neg_overlap: float = 0.5
    code_type: str = "CORNER"
    in_target: bool = False
    agnostic: bool = False
    only_inside: bool = False
    bp_inside: bool = False
    mining: str = "MAX_NEGATIVE"
    sample: int = 64
    logistic: bool = False
    l2: bool = False
    weight: float = 1.0
    normalization: str = "VALID"

    @property
    def text(self) -> str:
        def flag(value: bool) -> str:
            return str(value).lower()

        return f"""multibox_loss_param {{
            num_classes: {CLASSES if not self.agnostic else 2} share_location: {flag(self.shared)}
            match_type: {"PER_PREDICTION" if self.each else "BIPARTITE"} overlap_threshold: {self.overlap}
            use_prior_for_matching: {flag(self.by_prior)} use_difficult_gt: {flag(self.difficult)}
            neg_pos_ratio: {self.ratio} neg_overlap: {self.neg_overlap} code_type: {self.code_type}
            encode_variance_in_target: {flag(self.in_target)} map_object_to_agnostic: {flag(self.agnostic)}
            ignore_cross_boundary_bbox: {flag(self.only_inside)} bp_inside: {flag(self.bp_inside)}
            mining_type: {self.mining} sample_size: {self.sample} loc_weight: {self.weight}
            conf_loss_type: {"LOGISTIC" if self.logistic else "SOFTMAX"}
            loc_loss_type: {"L2" if self.l2 else "SMOOTH_L1"} }}
            loss_param {{ normalization: {self.normalization} }} loss_weight: 0.5"""


def crosses(box: np.ndarray) -> bool:
    return bool((box < 0).any() or (box > 1).any())


def matched(boxes: np.ndarray, truths: list[np.ndarray], s: Settings) -> tuple[list[int], list[float]]:
    """The ground truth of each box (−1: none, −2: takes no part), and its largest overlap."""
    index, largest = [-1] * len(boxes), [0.0] * len(boxes)
    pairs: dict[int, dict[int, float]] = {}
    for i, box in enumerate(boxes):
        if s.only_inside and crosses(box):
            index[i] = -2
            continue
        for j, truth in enumerate(truths):
            common = box_oracle.overlap(box, truth[3:7])
            if common > 1e-6:
                largest[i] = max(largest[i], common)
                pairs.setdefault(i, {})[j] = common
    pool = list(range(len(truths)))
    while pool:
        free = [
            (common, -i, -j) for i, row in pairs.items() for j, common in row.items() if index[i] == -1 and j in pool
        ]
        if not free:
            break
        _, i, j = max(free)
        index[-i] = -j
        pool.remove(-j)
    for i, row in pairs.items():
        if s.each and index[i] == -1:
            common, j = max((common, -j) for j, common in row.items())
            if common >= s.overlap:
                index[i] = -j
    return index, largest


def location_term(code: np.ndarray, prior: np.ndarray, variance: np.ndarray, truth: np.ndarray, s: Settings) -> tuple:
    """Loss and slope of one matched prior."""
    size = np.tile(prior[2:] - prior[:2], 2)
    if s.code_type == "CENTER_SIZE":
        target = np.r_[
            ((truth[:2] + truth[2:]) / 2 - (prior[:2] + prior[2:]) / 2) / size[:2],
            np.log((truth[2:] - truth[:2]) / size[:2]),
        ]
    else:
        target = (truth - prior) / (size if s.code_type == "CORNER_SIZE" else 1)
    difference = (code - target) / variance if s.in_target else code - target / variance
    if s.bp_inside:
        scale = np.ones(4) if s.in_target else variance
        box = prior if s.by_prior else box_oracle.decode(s.code_type, code[None], prior[None], scale[None])[0]
        difference = np.where((box < 0) | (box > 1), 0, difference)
    if s.l2:
        return 0.5 * (difference**2).sum(), difference
    small = np.abs(difference) < 1
    loss = np.where(small, 0.5 * difference**2, np.abs(difference) - 0.5).sum()
    return loss, np.where(small, difference, np.sign(difference))


def confidence_term(x: np.ndarray, target: np.ndarray, s: Settings) -> tuple[float, np.ndarray]:
    if s.logistic:
        return (np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0) - x * target).sum(), 1 / (1 + np.exp(-x)) - target
    p = np.exp(x - x.max())
    p /= p.sum()
    return -np.log(p[target.argmax()]), p - target


def caffe(bottoms: dict[str, np.ndarray], s: Settings) -> tuple[float, np.ndarray, np.ndarray]:
    """The loss, and its gradient by the codes and the scores."""
    classes = 2 if s.agnostic else CLASSES
    b = {name: value.astype(np.float64) for name, value in bottoms.items()}
    priors, variances = bottoms["priors"].reshape(2, -1, 4)
    count = len(priors)
    codes = b["code"].reshape(IMAGES, count, -1, 4)
    scores = b["scores"].reshape(IMAGES, count, classes)
    dcodes, dscores = np.zeros_like(codes), np.zeros_like(scores)
    location = confidence = 0.0
    matches = 0
    for n in range(IMAGES):
        truths = [row for row in bottoms["truth"][0, 0] if row[0] == n and (s.difficult or not row[7])]
        boxes = priors
        if not s.by_prior:
            scale = np.ones_like(variances) if s.in_target else variances
            boxes = box_oracle.decode(s.code_type, bottoms["code"].reshape(IMAGES, count, 4)[n], priors, scale)
        index, largest = matched(boxes, truths, s)
        one_hot = np.eye(classes)
        labels = [(1 if s.agnostic else int(truths[j][1])) if j >= 0 else 0 for j in index]
        where = [0 if s.shared or j < 0 else int(truths[j][1]) for j in index]
        terms = [
            location_term(codes[n, i, where[i]], priors[i].astype(float), variances[i], truths[j][3:7].astype(float), s)
            if j >= 0
            else (0.0, np.zeros(4))
            for i, j in enumerate(index)
        ]
        losses = [confidence_term(scores[n, i], one_hot[labels[i]], s) for i in range(count)]
        negatives: list[int] = []
        if s.mining == "MAX_NEGATIVE" and truths:
            eligible = [i for i in range(count) if index[i] == -1 and largest[i] < s.neg_overlap]
            number = int(sum(j >= 0 for j in index) * s.ratio)
            negatives = sorted(eligible, key=lambda i: -losses[i][0])[:number]
        if s.mining == "HARD_EXAMPLE" and truths:
            hard = sorted(range(count), key=lambda i: -(losses[i][0] + terms[i][0]))[: s.sample]
            negatives = [i for i in hard if index[i] == -1]
            index = [-1 if j >= 0 and i not in hard else j for i, j in enumerate(index)]
        for i, j in enumerate(index):
            if j >= 0:
                matches += 1
                location += terms[i][0]
                dcodes[n, i, where[i]] = terms[i][1]
            if j >= 0 or i in negatives or s.mining == "NONE":
                confidence += losses[i][0]
                dscores[n, i] = losses[i][1]
    divisor = max({"VALID": matches, "FULL": IMAGES * count, "BATCH_SIZE": IMAGES, "NONE": 1}[s.normalization], 1)
    scale = 0.5 / divisor
    loss = (s.weight * location + confidence) / divisor
    return loss, dcodes.reshape(IMAGES, -1) * scale * s.weight, dscores.reshape(IMAGES, -1) * scale


def assert_agrees(bottoms: dict[str, np.ndarray], s: Settings) -> None:
    net = net_over("MultiBoxLoss", bottoms, s.text, phase="TRAIN")
    net.forward()
    diffs = net.backward()
    loss, dcode, dscores = caffe(bottoms, s)
    np.testing.assert_allclose(net.blobs["top"].data, loss, rtol=1e-5)
    np.testing.assert_allclose(diffs["code"], dcode, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(diffs["scores"], dscores, rtol=1e-4, atol=1e-5)
    assert not diffs["priors"].any() and not diffs["truth"].any()


# Against the layer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "settings",
    [
        Settings(code_type="CENTER_SIZE"),
        Settings(code_type="CORNER_SIZE", l2=True, each=False),
        Settings(code_type="CENTER_SIZE", in_target=True, weight=3.0),
        Settings(bp_inside=True),
        Settings(bp_inside=True, by_prior=False, in_target=True),
        Settings(by_prior=False, overlap=0.2),
        Settings(only_inside=True, overlap=0.1),
        Settings(difficult=False),
        Settings(ratio=1.5, neg_overlap=0.1),
        Settings(mining="HARD_EXAMPLE", sample=5),
        Settings(mining="HARD_EXAMPLE", only_inside=True, sample=9),
        Settings(mining="NONE"),
        Settings(mining="NONE", shared=False, code_type="CENTER_SIZE"),
        Settings(normalization="FULL"),
        Settings(normalization="BATCH_SIZE"),
        Settings(normalization="NONE"),
    ],
    ids=lambda s: " ".join(f"{k}={v}" for k, v in vars(s).items() if v != vars(Settings())[k]),
)
def test_loss_and_diffs_are_those_of_caffe_ssd(settings, seed):
    assert_agrees(drawn(seed, settings.shared), settings)


def test_objects_may_be_mapped_to_one_class():
    bottoms = drawn()
    bottoms["scores"] = bottoms["scores"][:, : PRIORS * 2]
    assert_agrees(bottoms, Settings(agnostic=True))


def test_without_any_ground_truth_loss_and_diffs_are_0():
    bottoms = drawn()
    bottoms["truth"][..., 0] = -1
    assert_agrees(bottoms, Settings())
    assert net_over("MultiBoxLoss", bottoms, Settings().text, phase="TRAIN").forward()["top"] == 0


def test_of_equal_overlaps_the_first_prior_is_matched():
    bottoms = drawn(priors=4)
    bottoms["priors"][0, 0] = np.tile([0.2, 0.2, 0.6, 0.6], 4)
    bottoms["truth"][0, 0, :, 3:7] = [0.2, 0.2, 0.6, 0.5]
    net = net_over("MultiBoxLoss", bottoms, Settings(each=False).text, phase="TRAIN")
    net.forward()
    diff = net.backward()["code"].reshape(IMAGES, 4, 4)
    np.testing.assert_array_equal(diff.any(-1), [[True, True, False, False], [False] * 4, [True, True, True, False]])


def test_propagate_down_leaves_a_part_of_the_loss_out():
    bottoms, s = drawn(), Settings()
    flags = "propagate_down: false propagate_down: true propagate_down: false propagate_down: false"
    net = net_over("MultiBoxLoss", bottoms, f"{s.text} {flags}", phase="TRAIN")
    alone = Settings(weight=0)
    np.testing.assert_allclose(net.forward()["top"], caffe(bottoms, alone)[0], rtol=1e-5)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "num_classes is missing"),
        ("num_classes: 3 background_label_id: 3", "must be one of 3 classes"),
        ("num_classes: 3 share_location: false", "give mining_type: NONE"),
        ("num_classes: 3 do_neg_mining: false", "do_neg_mining contradicts mining_type MAX_NEGATIVE"),
        ("num_classes: 3 map_object_to_agnostic: true", "goes with num_classes: 2"),
        ("num_classes: 3 nms_param { nms_threshold: 0.5 }", "nms_param .* is not covered"),
        ("num_classes: 4", r"'scores' has the shape 3×54, but 18 priors need N×72"),
    ],
)
def test_what_does_not_fit_is_said(text, message):
    with pytest.raises(NetError, match=message):
        net_over("MultiBoxLoss", drawn(), f"multibox_loss_param {{ {text} }}", phase="TRAIN")


def test_rows_of_ground_truth_have_8_columns():
    with pytest.raises(NetError, match="'truth' has the shape 1×1×6×7, but must be 1×1×G×8"):
        net_over("MultiBoxLoss", drawn() | {"truth": np.zeros((1, 1, 6, 7))}, Settings().text, phase="TRAIN")
