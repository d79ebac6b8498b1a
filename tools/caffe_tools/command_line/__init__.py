"""The command line ``caffe-layers``."""
