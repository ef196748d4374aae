"""Plans with a call more, to fit further."""

import pytest
import torch

import sde_diffusion as sd
from sde_diffusion.transform import analytic_first_step
from sde_diffusion.tuning import grown


@pytest.mark.parametrize("schedule", [sd.EDM(), sd.VPLinear(), sd.FlowMatching()], ids=str)
@pytest.mark.parametrize("spared", [False, True])
def test_they_end_where_the_plan_does_and_ask_in_every_gap(schedule, spared):
    grid = sd.times.karras(schedule, 5, t_start=schedule.time_of(-4.0))
    plan = sd.SOLVERS["unipc"](schedule, grid)
    plan = analytic_first_step(plan, schedule) if spared else plan
    denoiser = sd.problems.ring().denoiser(schedule)
    x = torch.randn(16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x * float(schedule.sigma(grid[0]))
    wanted = sd.run(plan, denoiser, x)
    plans = grown(plan, schedule)
    assert len(plans) == plan.nfe
    for k, more in enumerate(plans):
        asked = list(more.asked_at)
        new = asked.pop(k + 1)
        assert asked == pytest.approx(plan.asked_at, rel=1e-12)
        after = asked[k + 1] if k + 1 < len(asked) else plan.times[-1]
        assert after < new < asked[k]
        torch.testing.assert_close(sd.run(more, denoiser, x), wanted, rtol=1e-9, atol=1e-9)


def test_calls_at_one_noise_level_have_no_gap_and_alpha_0_has_one_that_is_seen():
    flow = sd.FlowMatching()
    (two,) = grown(sd.SOLVERS["ddim"](flow, [1.0, 0.0]), flow)
    assert two.asked_at[0] == 1.0 > two.asked_at[1] > 0
    heun = sd.SOLVERS["edm_heun"](sd.EDM(), [80.0, 5.0, 1.0, 0.0])
    assert heun.asked_at == pytest.approx((80.0, 5.0, 5.0, 1.0, 1.0), rel=1e-12)
    for more in grown(heun, sd.EDM()):
        assert more.nfe == 6
        assert len({round(t, 9) for t in more.asked_at}) == 4
    assert len(grown(heun, sd.EDM())) == 3
    with pytest.raises(TypeError, match="grown needs a plan, not 'x'"):
        grown("x", flow)


def test_tables_begin_with_them_alone_where_the_usual_guesses_are_left_out():
    """A fit of no iterations is the best of the guesses: the end of the plan of one call less."""
    edm = sd.EDM()
    denoiser = sd.problems.ring().denoiser(edm)
    four = sd.tune("angular", denoiser, 256, shape=(2,), nfe=4, max_iterations=4, tries=1)
    plans = grown(four, edm)
    more = {"shape": (2,), "nfe": 5, "max_iterations": 3, "tries": 1, "usual": False}
    five = sd.tune("angular", denoiser, 256, **more, guesses=plans)
    errors = [plan.origin["results"]["tuned"]["validation"]["rms"] for plan in (four, five)]
    assert errors[1] < errors[0]
    again = sd.tune("angular", denoiser, 256, **more, guesses=iter(plans))
    assert again == five  # a generator is not used up before the fit
    with pytest.raises(ValueError, match="nothing to begin with"):
        sd.tune("angular", denoiser, 256, **more)
    noisy = sd.SOLVERS["ddpm"](edm, sd.times.karras(edm, 4))
    with pytest.raises(ValueError, match="draws noise"):
        grown(noisy, edm)
