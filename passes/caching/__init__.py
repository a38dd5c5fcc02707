"""Steps that reuse what the steps before them computed: alternatives, and schedules of them."""

from .deepcache import DeepCache, DeepCacheConfig

__all__ = ["DeepCache", "DeepCacheConfig"]
