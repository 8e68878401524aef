"""Which GPU this process computes on. This module can be used before TensorFlow is loaded.

TensorFlow gives a GPU its name in a process when the first session opens, and refuses a session with another list. So
the choice is made once, before, and every session takes it from here (`tf_versions.session_config`).
"""

from typing import Optional

_chosen: Optional[int] = None


def choose_gpu(index: Optional[int]) -> None:
    """Let all sessions of this process use only GPU `index` of those that CUDA shows to it. None: no choice is made."""
    global _chosen
    _chosen = index


def visible_device_list() -> str:
    """Return the chosen GPU as TensorFlow's `gpu_options.visible_device_list` wants it; empty if none is chosen."""
    return '' if _chosen is None else str(_chosen)
