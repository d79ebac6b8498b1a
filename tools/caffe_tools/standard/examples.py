"""Numbers drawn for bottoms for which not any will do: regions, sizes of images, boxes. A layer's function puts them
into ``layer.examples``; whoever runs it draws them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from caffe_tools.graph.dims import Dim

Example = Callable[[tuple[int, ...], np.random.Generator], np.ndarray]
"""Draws an array of a shape."""

VARIANCES = (0.1, 0.1, 0.2, 0.2)
"""Of prior boxes, as SSD has them."""


def regions(map_shape: Sequence[Dim], scale: float) -> Example:
    """Rows (image, x1, y1, x2, y2): corners within the images. A map of ``map_shape`` shows these ``scale`` as
    large."""

    def draw(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
        images, _, height, width = (int(dim) for dim in map_shape)
        count = math.prod(shape) // 5
        last = [max(size / scale - 1, 0) for size in (width, height)]
        corners = np.sort(random.uniform(0, 1, (count, 2, 2)) * last, axis=1)
        return np.concatenate([random.integers(0, images, (count, 1)), corners.reshape(count, 4)], 1).reshape(shape)

    return draw


def image_sizes(map_shape: Sequence[Dim], stride: int) -> Example:
    """Rows (height, width, scale, …): the images that a map of ``map_shape`` was made of, at scale 1."""

    def draw(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
        rows = np.ones(shape).reshape(shape[0], -1)
        rows[:, :2] = [int(dim) * stride for dim in map_shape[2:]]
        return rows.reshape(shape)

    return draw


def prior_boxes(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """As PriorBox makes them: a row of corners within the image, and one of variances."""
    boxes = _boxes(math.prod(shape) // 8, random)
    return np.stack([boxes, np.broadcast_to(VARIANCES, boxes.shape)]).reshape(shape)


def ground_truth(images: Dim, classes: int, background: int) -> Example:
    """Rows (image, label, instance, xmin, ymin, xmax, ymax, difficult): some for each image, as far as there are."""

    def draw(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
        count = math.prod(shape) // 8
        labels = [label for label in range(classes) if label != background] or [background]
        image = np.sort(np.arange(count) % int(images))
        instance = np.arange(count) - np.searchsorted(image, image)
        columns = [image, random.choice(labels, count), instance, *_boxes(count, random).T, np.zeros(count)]
        return np.stack(columns, axis=1).reshape(shape)

    return draw


def _boxes(count: int, random: np.random.Generator) -> np.ndarray:
    """count × 4 corners between 0 and 1."""
    size = random.uniform(0.15, 0.6, (count, 2))
    first = random.uniform(0, 1, (count, 2)) * (1 - size)
    return np.concatenate([first, first + size], axis=1)
