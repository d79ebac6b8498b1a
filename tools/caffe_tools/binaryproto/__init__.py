"""Caffe's binary files: weights and solver states, read and written on the wire format."""
