"""Serving hosts the winning flow map over HTTP."""
