"""What the losses share in which each element has a probability of its own (sigmoid)."""
