"""FlowMatching; f and g grow without bound towards t = 1."""

from _schedule import draw_schedule

from sde_diffusion.schedules import FlowMatching


def draw(path):
    draw_schedule(FlowMatching(), path, last=0.95)
