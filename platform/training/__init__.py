"""Training: launch, worker loop, objective, checkpoints, moving averages, reporters."""
