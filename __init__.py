"""onestep: train, compare and serve one-step image generators behind one contract."""

__version__ = "0.1.0"
