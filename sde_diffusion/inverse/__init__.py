"""Inverse problems: samples of p(x_0 | y) for y = A(x_0) + sigma_y n; one paper a file."""
