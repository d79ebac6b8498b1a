"""The kinds of fields with which ``layer_type`` declares what a private layer reads (``prototxt.fields``)."""

from caffe_tools.prototxt.fields import Bool, Enum, Field, Float, Int, OptionalEnum, Repeated, String, Submessage, UInt

__all__ = ["Bool", "Enum", "Field", "Float", "Int", "OptionalEnum", "Repeated", "String", "Submessage", "UInt"]
