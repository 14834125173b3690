"""Configuration of search spaces."""
