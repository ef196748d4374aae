"""Errors at the end of a path: this library's samplers and its peers', on closed-form data."""
