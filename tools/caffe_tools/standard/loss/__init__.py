"""Losses, and what measures a net against labels."""
