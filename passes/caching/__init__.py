"""Steps that reuse what the steps before them computed: alternatives, and schedules of them."""

from .block_caching import BlockCaching, BlockCachingConfig
from .deepcache import DeepCache, DeepCacheConfig
from .faster_diffusion import FasterDiffusion, FasterDiffusionConfig
from .fora import Fora, ForaConfig
from .predict import PredictReuse, PredictReuseConfig
from .t_gate import TGate, TGateConfig

__all__ = [
    "BlockCaching",
    "BlockCachingConfig",
    "DeepCache",
    "DeepCacheConfig",
    "FasterDiffusion",
    "FasterDiffusionConfig",
    "Fora",
    "ForaConfig",
    "PredictReuse",
    "PredictReuseConfig",
    "TGate",
    "TGateConfig",
]
