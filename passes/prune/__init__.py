"""What a picture does not need, left out: blocks by name, or those that lose least within a budget."""

from .blocks import PruneBlocks
from .config import PruneBlocksConfig, PruneConfig
from .prune import Prune
from .prune_channels import PruneChannels, PruneChannelsConfig

__all__ = ["Prune", "PruneBlocks", "PruneBlocksConfig", "PruneChannels", "PruneChannelsConfig", "PruneConfig"]
