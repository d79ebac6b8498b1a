"""Nets that users know, as prototxts with the published names: one file per family, one function per net.

Each function returns the text of a net with fillers in place of trained weights. ``divisor`` makes a net thin: every
number of channels inside it is divided by that, while its inputs, outputs and layers stay as they are.
"""
