"""Guidance: a denoiser made of denoisers, for every solver; one paper a file."""
