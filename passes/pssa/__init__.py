"""Patch similarity-based sparsity augmentation (PSSA): attention scores, pruned and written compressed."""

from .prune import PruneScores, PruneScoresConfig

__all__ = ["PruneScores", "PruneScoresConfig"]
