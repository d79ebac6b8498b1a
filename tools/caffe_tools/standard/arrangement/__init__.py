"""Layers that rearrange, join, cut or pick."""
