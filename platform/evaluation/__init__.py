"""Evaluation: metrics with their floors and baselines, the NFE curve, figures."""
