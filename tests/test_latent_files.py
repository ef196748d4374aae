"""Latent diffusion end to end, and in files: to the bit, and never with another autoencoder."""

import pytest
import torch
from latents import Rotation, autoencoder, images

import sde_diffusion as sd
from sde_diffusion.cli import main
from sde_diffusion.latent import LatentDiffusion, LatentSpace
from sde_diffusion.networks import ResidualMLP
from sde_diffusion.training import AutoencoderObjective, DiffusionObjective, Trainer
from sde_diffusion.training.random import generator_at

SCHEDULE = sd.VPCosine()
QUIET = {"batch_size": 16, "progress": False, "device": "cpu"}


def network(classes=None, seed=0):
    return ResidualMLP((3, 2, 3), width=8, depth=1, classes=classes, seed=seed)


def denoiser(classes=None, seed=0):
    return sd.NetworkDenoiser(network(classes, seed), SCHEDULE, "velocity")


@pytest.fixture(scope="module")
def space():
    return LatentSpace.measure(autoencoder(), images())


def trained_on(space, folder, **options):
    """Two steps on the latents of a space."""
    objective = DiffusionObjective(denoiser())
    latents = space.encode_all(images())
    options = {"steps": 2, "folder": folder, **QUIET, **options}
    return Trainer(objective, latents, **options).train()


def test_the_trainer_trains_an_autoencoder():
    objective = AutoencoderObjective(autoencoder(), kl=0.01)
    options = {"steps": 40, "warm_up": 0, "learning_rate": 3e-3, **QUIET}
    result = Trainer(objective, images(), **options).train()
    assert result.losses[-5:].mean() < 0.8 * result.losses[:5].mean()
    found = LatentSpace.measure(result.network, images())
    assert found.decode(found.encode(images())).shape == images().shape


@pytest.mark.parametrize("variational", [True, False])
def test_a_space_in_a_file_is_the_same_to_the_bit(tmp_path, variational):
    space = LatentSpace.measure(autoencoder(variational), images(), per_channel=variational)
    space.save(tmp_path / "space.safetensors")
    again = LatentSpace.load(tmp_path / "space.safetensors")
    assert again.describe() == space.describe()
    z = space.encode(images(), generator_at(1))
    assert torch.equal(again.encode(images(), generator_at(1)), z)
    assert torch.equal(again.decode(z), space.decode(z))
    assert again.event_shape == space.event_shape


def test_a_model_in_a_file_gives_the_same_samples_to_the_bit(space, tmp_path):
    labels = torch.tensor([0, 1, 1])
    made = denoiser(classes=2)
    with torch.no_grad():
        for weight in made.network.parameters():  # a new network answers zero
            weight.add_(0.1)
    model = LatentDiffusion(made, space)
    model.save(tmp_path / "model.safetensors")
    again = LatentDiffusion.load(tmp_path / "model.safetensors")
    draw = lambda m: m.given(labels).sample(3, solver="ddim", steps=4, seed=0)
    assert draw(model).shape == (3, 1, 4, 6)
    assert torch.equal(draw(model), draw(again))
    other = model.given(1 - labels).sample(3, solver="ddim", steps=4, seed=0)
    assert not torch.equal(draw(model), other)


def test_a_sample_is_a_decoded_sample_of_the_denoiser(space):
    model = LatentDiffusion(denoiser(), space)
    z = sd.sample(model.denoiser, (2, 3, 2, 3), steps=5, seed=7)
    assert torch.equal(model.sample(2, steps=5, seed=7), space.decode(z))


def test_a_checkpoint_becomes_a_model(space, tmp_path):
    result = trained_on(space, tmp_path)
    found = LatentDiffusion.from_checkpoint(tmp_path, space)
    direct = LatentDiffusion(sd.NetworkDenoiser(result.network, SCHEDULE, "velocity"), space)
    options = {"solver": "ddim", "steps": 3, "seed": 0}
    assert torch.equal(found.sample(2, **options), direct.sample(2, **options))


@pytest.mark.parametrize("change", ["weights", "scale"])
def test_latents_of_another_autoencoder_are_refused(space, tmp_path, change):
    trained_on(space, tmp_path)
    other = LatentSpace.measure(autoencoder(seed=1), images())
    if change == "scale":
        other = LatentSpace(space.autoencoder, space.event_shape, space.shift, 2 * space.scale)
    with pytest.raises(ValueError, match="give the space of its training"):
        LatentDiffusion.from_checkpoint(tmp_path, other)
    with pytest.raises(ValueError, match="another run"):
        trained_on(other, tmp_path, steps=3)
    assert LatentDiffusion.from_checkpoint(tmp_path, space).sample(1, steps=2).isfinite().all()


def test_the_command_says_that_samples_are_latents(space, tmp_path, capsys):
    trained_on(space, tmp_path / "run")
    draw = ["sample", str(tmp_path / "run"), "--n", "2", "--steps", "2", "--out"]
    assert main([*draw, str(tmp_path / "pictures")]) != 0  # three channels: not to be drawn as such
    told = capsys.readouterr()
    assert "LatentDiffusion.from_checkpoint" in told.out + told.err
    assert not (tmp_path / "pictures").exists()
    assert main([*draw, str(tmp_path / "z.npz")]) == 0
    assert "LatentDiffusion.from_checkpoint" in capsys.readouterr().out
    assert (tmp_path / "z.npz").exists()


def test_an_autoencoder_is_not_sampled_from(tmp_path, capsys):
    objective = AutoencoderObjective(autoencoder(), kl=0.01)
    Trainer(objective, images(), steps=1, folder=tmp_path / "run", **QUIET).train()
    assert main(["sample", str(tmp_path / "run")]) == 1
    assert "holds an autoencoder" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"LatentSpace\.measure"):
        sd.load_denoiser(tmp_path / "run")


def test_files_of_another_kind_or_damaged(space, tmp_path):
    path = tmp_path / "space.safetensors"
    space.save(path)
    with pytest.raises(ValueError, match="latent_space"):
        LatentDiffusion.load(path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        LatentSpace.load(path)


def test_what_no_file_can_hold(space, tmp_path):
    own = LatentSpace.measure(Rotation(torch.eye(2)), torch.randn(9, 2, generator=generator_at(0)))
    with pytest.raises(TypeError, match="Rotation"):
        own.save(tmp_path / "space.safetensors")
    exact = sd.FunctionDenoiser(lambda x, t: x, SCHEDULE)
    with pytest.raises(TypeError, match="NetworkDenoiser"):
        LatentDiffusion(exact, space).save(tmp_path / "model.safetensors")
    function = LatentDiffusion(sd.NetworkDenoiser(lambda x, t: x, SCHEDULE), space)
    with pytest.raises(ValueError, match="cannot be made again"):
        function.save(tmp_path / "model.safetensors")
    with pytest.raises(TypeError, match="how to read the network"):
        LatentDiffusion(network(), space)
    assert list(tmp_path.iterdir()) == []
