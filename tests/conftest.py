"""Shared by all tests: one thread (two processes of pytest-xdist), reproducible hypothesis."""

import gc

import pytest
import torch
from hypothesis import HealthCheck, settings
from models import VP, Net

from sde_diffusion import NetworkDenoiser

torch.set_num_threads(1)
settings.register_profile(
    "sde_diffusion",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("sde_diffusion")


def pytest_collection_modifyitems(items):
    """Each process must find the same tests: an address in a name is another one in each."""
    for item in items:
        if " at 0x" in item.name:
            raise pytest.UsageError(f"{item.nodeid}: give this case an id that tells no address")


def pytest_collection_finish():
    """What was collected stays: the collector of garbage need not look through it ever again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def x():
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def denoiser():
    return NetworkDenoiser(Net(), VP)
