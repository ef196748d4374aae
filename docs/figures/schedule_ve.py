"""VE."""

from _schedule import draw_schedule

from sde_diffusion.schedules import VE


def draw(path):
    draw_schedule(VE(), path, log=True)
