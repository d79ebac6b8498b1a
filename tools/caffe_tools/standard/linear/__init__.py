"""Layers that multiply by learnable weights."""
