"""Two runs of a net compared, blob by blob; and a Python layer against central differences."""

from caffe_tools.check.check import check

__all__ = ["check"]
