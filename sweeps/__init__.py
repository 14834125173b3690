"""Sweeps run the platform many times: search spaces, Ray Tune with Optuna, reports."""
