"""Make the digits_*.npz of this folder from scikit-learn's copy of the UCI handwritten digits.

    pip install scikit-learn && python prototxt_examples/data/make_digits.py

Single digits: ``data`` (N, 1, 8, 8) with grey values 0..16, ``label`` (N,) with the digit.
Pairs, two digits side by side: ``data`` (N, 1, 8, 16), ``label`` (N, 10), 1 for each digit that occurs (multi-hot).
A pair is made of digits of its own split, each used once, so that no handwriting is in training and in test.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

FOLDER = Path(__file__).resolve().parent
TRAINING_DIGITS = 1497  # of 1797: the 300 others are 3 test batches of 100


def main():
    digits = load_digits()
    order = np.random.RandomState(0).permutation(len(digits.target))
    images = digits.images[order].astype(np.uint8)[:, np.newaxis]
    labels = digits.target[order].astype(np.uint8)
    for split, rows in (("train", slice(None, TRAINING_DIGITS)), ("test", slice(TRAINING_DIGITS, None))):
        np.savez_compressed(FOLDER / f"digits_{split}.npz", data=images[rows], label=labels[rows])
        pair_images, pair_labels = side_by_side(images[rows], labels[rows])
        np.savez_compressed(FOLDER / f"digit_pairs_{split}.npz", data=pair_images, label=pair_labels)


def side_by_side(images, labels):
    """The 1st and 2nd digit, the 3rd and 4th, …: images beside each other, labels as one multi-hot row."""
    pairs = len(labels) // 2
    left, right = images[0 : 2 * pairs : 2], images[1 : 2 * pairs : 2]
    occurs = np.zeros((pairs, 10), np.uint8)
    occurs[np.arange(pairs), labels[0 : 2 * pairs : 2]] = 1
    occurs[np.arange(pairs), labels[1 : 2 * pairs : 2]] = 1
    return np.concatenate([left, right], axis=3), occurs


if __name__ == "__main__":
    main()
