"""Sampling in parallel: rounds, work and time against the sequential run."""
