import warnings

# Ray declares the fields of its schemas in a way that pydantic gives up, and says so when imported.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import ray.serve  # noqa: F401
