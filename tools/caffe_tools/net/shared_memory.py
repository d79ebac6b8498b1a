"""What a layer does whose tops hold their numbers in the memory of its bottom: it hands on the memory, not the numbers.

Source: Caffe src/caffe/layers/split_layer.cpp, flatten_layer.cpp, include/caffe/layers/parameter_layer.hpp; Caffe-SSD
src/caffe/layers/permute_layer.cpp. (reshape_layer.cpp, concat_layer.cpp and slice_layer.cpp do it all in Reshape.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caffe_tools.net.blob import Blob
from caffe_tools.standard import Sharing


def share_forward(sharing: Sharing, bottoms: Sequence[Blob], tops: Sequence[Blob], learnable: Sequence[Blob]) -> None:
    source = learnable[0] if sharing is Sharing.PARAMETER else bottoms[0]
    for top in tops:
        top.share_data(source)
        if sharing is Sharing.PARAMETER:
            top.share_diff(source)


def share_backward(sharing: Sharing, tops: Sequence[Blob], bottoms: Sequence[Blob]) -> None:
    """Give the bottom its diff. Where the diff is shared from the start, it has it."""
    if sharing is Sharing.IN_PASSES:
        bottoms[0].share_diff(tops[0])
    elif sharing is Sharing.DATA:
        diff = bottoms[0].diff
        diff[...] = tops[0].diff
        for top in tops[1:]:
            np.add(diff, top.diff, out=diff)
