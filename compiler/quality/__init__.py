"""Measures of what a change to a model does to its pictures. Passes get them through their context."""
