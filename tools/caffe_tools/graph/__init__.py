"""ONNX graphs: built node by node, run in ONNX Runtime, written to files. Nothing here knows of Caffe."""
