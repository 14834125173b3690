"""onestep: train, compare and serve one-step image generators behind one contract, the two-time flow map."""

__version__ = "0.1.0"
