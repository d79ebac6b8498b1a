"""Foreign training graphs judged by the layer that defines them."""

from caffe_tools.referee.referee import crosscheck

__all__ = ["crosscheck"]
