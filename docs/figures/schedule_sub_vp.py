"""SubVP."""

from _schedule import draw_schedule

from sde_diffusion.schedules import SubVP


def draw(path):
    draw_schedule(SubVP(), path)
