"""The method of the paper as functions and models on tensors: PPO, policy, reward model, label types, tasks."""
