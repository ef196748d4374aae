"""Runs in threads of one process: each as if it were alone."""

import threading
import time

from accelerate.state import AcceleratorState
from runs import Remembering, bits, dropping, fit, objective

from sde_diffusion.networks import ResidualMLP


def test_runs_in_threads_wait_for_each_other():
    """What they share, torch's random numbers and accelerate's state, is one's at a time."""
    order, results, before = [], {}, dict(AcceleratorState._shared_state)
    start = threading.Barrier(2)

    class Slow(Remembering):
        def forward(self, batch, generator):
            order.append(threading.current_thread().name)
            time.sleep(0.003)
            return super().forward(batch, generator)

    def run(precision):
        start.wait(10)
        network = dropping().network
        result = fit(objective(network, Slow), mixed_precision=precision)
        results[precision] = bits(result.network)

    threads = [threading.Thread(target=run, args=(p,), name=p) for p in ("no", "bf16")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert order in (["no"] * 24 + ["bf16"] * 24, ["bf16"] * 24 + ["no"] * 24)
    assert AcceleratorState._shared_state == before
    for precision, found in results.items():
        assert found == bits(fit(dropping(), mixed_precision=precision).network)


def test_a_run_within_a_run(tmp_path):
    """A sampler may train something itself, in the same thread."""
    inner = []

    def sampler(network):
        inner.append(bits(fit(dropping(), steps=2).network))
        return network.enter.weight.new_zeros(4, 2)

    outer = fit(dropping(), folder=tmp_path, sampler=sampler, sample_every=24)
    assert inner == [bits(fit(dropping(), steps=2).network)] * 2
    assert bits(outer.network) == bits(fit(dropping()).network)
    assert isinstance(outer.network, ResidualMLP)
