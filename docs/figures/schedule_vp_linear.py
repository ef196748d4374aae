"""VPLinear."""

from _schedule import draw_schedule

from sde_diffusion.schedules import VPLinear


def draw(path):
    draw_schedule(VPLinear(), path)
