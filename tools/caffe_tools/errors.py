"""The errors of caffe_tools. The text of every one is a single line that the command line prints as it is."""


class CaffeToolsError(Exception):
    """Bad input. The command line prints its text and exits with 2."""


class PrototxtError(CaffeToolsError):
    """A prototxt that cannot be read, or a message that no prototxt can hold."""


class CaffemodelError(CaffeToolsError):
    """A .caffemodel or .binaryproto that cannot be read or written."""


class NetError(CaffeToolsError):
    """A net that Caffe would not build: its layers, blobs, shapes or parameters do not fit."""


class ExportError(CaffeToolsError):
    """A net that cannot be written as ONNX."""


class GraphError(CaffeToolsError):
    """An ONNX graph that cannot be built or differentiated."""


class SolverError(CaffeToolsError):
    """A solver that Caffe would not run, or a snapshot that does not fit it."""
