"""What the losses share in which each position has a distribution over the classes (softmax)."""
