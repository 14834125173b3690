"""Configuration of methods and networks."""
