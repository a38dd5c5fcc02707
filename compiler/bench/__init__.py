"""Measuring: bundles beside peers, their layers beside the limit of the machine."""
