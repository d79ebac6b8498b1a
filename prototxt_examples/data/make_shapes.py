"""Make the shapes_*.npz of this folder: drawn shapes, and what a RetinaNet head must answer about them.

    python prototxt_examples/data/make_shapes.py

Each 32×32 image holds one to three shapes of class 1 (filled rectangle), 2 (frame) or 3 (ellipse) on noise. The head
looks at every fourth pixel, so its grid has 8×8 positions; at each stand A = 3 anchors of area 12² and aspect
(height/width) ½, 1, 2.

    data        (N, 1, 32, 32)   grey values 0..255
    label       (N, A, 64)       the class of each anchor at each position: 0 background, −1 neither (ignored)
    box_target  (N, A·4, 8, 8)   (dx, dy, log dw, log dh) from the anchor to its box, 0 where there is none
    box_mask    (N, A·4, 8, 8)   1 where there is one

As in RetinaNet (Lin et al., Focal Loss for Dense Object Detection, 2017, section 4) an anchor belongs to the box that
it overlaps most when their IoU is at least 0.5, is background below 0.4 and ignored between. Here each box gets its
best anchor besides, however little they overlap, for the images are few.
"""

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
SIZE, STRIDE = 32, 4
GRID = SIZE // STRIDE
ANCHOR_SIDE, ASPECTS = 12.0, (0.5, 1.0, 2.0)
FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.4


def main():
    for split, images, seed in (("train", 96, 0), ("test", 32, 1)):
        np.savez_compressed(FOLDER / f"shapes_{split}.npz", **examples(images, seed))


def examples(count, seed):
    """The four arrays of ``count`` images."""
    random = np.random.RandomState(seed)
    anchors = anchor_boxes()
    rows = []
    for _ in range(count):
        boxes, classes = place_shapes(random)
        rows.append((draw(boxes, classes, random), *targets(anchors, boxes, classes)))
    names = ("data", "label", "box_target", "box_mask")
    return {name: np.stack([row[i] for row in rows]) for i, name in enumerate(names)}


def anchor_boxes():
    """(A·64, 4): x1, y1, x2, y2 of each anchor, anchor by anchor, each in row-major order of its positions."""
    y, x = np.mgrid[0:GRID, 0:GRID] * STRIDE + STRIDE / 2.0
    boxes = []
    for aspect in ASPECTS:
        width, height = ANCHOR_SIDE / np.sqrt(aspect), ANCHOR_SIDE * np.sqrt(aspect)
        boxes.append(np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=-1).reshape(-1, 4))
    return np.concatenate(boxes)


def place_shapes(random):
    """One to three boxes inside the image that hardly touch one another, and their classes."""
    boxes = np.zeros((0, 4))
    wanted = random.randint(1, 4)
    for _ in range(50):
        if len(boxes) == wanted:
            break
        width, height = random.randint(7, 17, size=2)
        x, y = random.randint(0, SIZE - width + 1), random.randint(0, SIZE - height + 1)
        box = np.array([[x, y, x + width, y + height]], float)
        if len(boxes) == 0 or overlaps(box, boxes).max() < 0.05:
            boxes = np.concatenate([boxes, box])
    return boxes, random.randint(1, 4, size=len(boxes))


def draw(boxes, classes, random):
    """(1, 32, 32): the shapes, bright on dark noise."""
    image = 15 * random.randint(0, 4, size=(SIZE, SIZE))
    y, x = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    for (x1, y1, x2, y2), kind in zip(boxes, classes, strict=True):
        inside = (x > x1) & (x < x2) & (y > y1) & (y < y2)
        if kind == 2:
            inside &= ~((x > x1 + 2) & (x < x2 - 2) & (y > y1 + 2) & (y < y2 - 2))
        elif kind == 3:
            inside &= ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 < 1
        image[inside] = random.randint(150, 256)
    return image.astype(np.uint8)[np.newaxis]


def targets(anchors, boxes, classes):
    """label, box_target and box_mask of one image."""
    iou = overlaps(anchors, boxes)
    owner, best = iou.argmax(axis=1), iou.max(axis=1)
    owner[iou.argmax(axis=0)] = np.arange(len(boxes))
    best[iou.argmax(axis=0)] = 1.0

    foreground = best >= FOREGROUND_IOU
    label = np.where(foreground, classes[owner], np.where(best < BACKGROUND_IOU, 0, -1))

    anchor_center, anchor_size = center_and_size(anchors)
    box_center, box_size = center_and_size(boxes[owner])
    deltas = np.concatenate([(box_center - anchor_center) / anchor_size, np.log(box_size / anchor_size)], axis=1)
    return (
        label.reshape(len(ASPECTS), -1).astype(np.int8),
        channels_first(np.where(foreground[:, np.newaxis], deltas, 0.0)).astype(np.float32),
        channels_first(np.repeat(foreground[:, np.newaxis], 4, axis=1)).astype(np.uint8),
    )


def overlaps(first, second):
    """(len(first), len(second)): intersection over union."""
    corner1 = np.maximum(first[:, np.newaxis, :2], second[np.newaxis, :, :2])
    corner2 = np.minimum(first[:, np.newaxis, 2:], second[np.newaxis, :, 2:])
    intersection = np.prod(np.maximum(corner2 - corner1, 0), axis=2)
    area1 = np.prod(first[:, 2:] - first[:, :2], axis=1)
    area2 = np.prod(second[:, 2:] - second[:, :2], axis=1)
    return intersection / (area1[:, np.newaxis] + area2[np.newaxis] - intersection)


def center_and_size(boxes):
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]


def channels_first(deltas):
    """(A·64, 4) → (A·4, 8, 8), as a convolution with 4 outputs an anchor gives them."""
    return deltas.reshape(len(ASPECTS), GRID, GRID, 4).transpose(0, 3, 1, 2).reshape(-1, GRID, GRID)


if __name__ == "__main__":
    main()
