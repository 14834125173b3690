"""Configuration of serving."""
