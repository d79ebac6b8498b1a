"""Layers that pool, cut or enlarge images."""
