"""Choices of kernels, measured on the device that they are for."""
