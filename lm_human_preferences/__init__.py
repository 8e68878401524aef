"""Fine-tuning language models from human preferences: a reward model learnt from choices, then PPO."""

__version__ = '0.1.0'
