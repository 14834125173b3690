"""Configuration of experiments, data, optimizers and training."""
