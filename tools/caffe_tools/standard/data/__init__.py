"""Layers that make blobs: inputs, files and databases, learnable arrays."""
