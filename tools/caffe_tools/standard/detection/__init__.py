"""Layers of detection nets."""
