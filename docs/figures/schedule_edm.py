"""EDM."""

from _schedule import draw_schedule

from sde_diffusion.schedules import EDM


def draw(path):
    draw_schedule(EDM(), path, log=True)
