"""The layers' loops compiled by numba, where it is installed."""
