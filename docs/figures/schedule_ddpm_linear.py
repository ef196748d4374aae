"""The betas of DDPM as a continuous schedule."""

from _schedule import draw_schedule

from sde_diffusion.tabulated import ddpm_linear


def draw(path):
    draw_schedule(ddpm_linear(), path, first=2e-3)
