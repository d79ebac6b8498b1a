"""Layers that map each element, or combine blobs element by element."""
