"""The vocabulary that every method shares: records, maps, paths, couplings, times, samplers."""
