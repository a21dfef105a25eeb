"""TRL's PPOTrainer beside our PPO: its package, its formulas, and both on one toy task."""
