"""VPCosine; f and g grow without bound towards t = 1."""

from _schedule import draw_schedule

from sde_diffusion.schedules import VPCosine


def draw(path):
    draw_schedule(VPCosine(), path, last=0.95)
