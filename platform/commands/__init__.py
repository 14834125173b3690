"""Commands of the command line that belong to the platform, one module each."""
