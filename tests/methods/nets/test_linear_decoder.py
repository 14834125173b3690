import pytest
import torch

from onestep.methods.nets.linear_decoder import LinearDecoder


def images(n: int, *, rank: int) -> torch.Tensor:
    """Images that are a mean and a sum of some fixed pictures."""
    rng = torch.Generator().manual_seed(0)
    pictures = torch.randn(rank, 3 * 4 * 4, generator=rng)
    return (torch.randn(n, rank, generator=rng) @ pictures + 0.3).unflatten(1, (3, 4, 4))


def test_images_of_low_rank_come_back_from_their_latents() -> None:
    x = images(100, rank=8)
    decoder = LinearDecoder.fitted(x, latent=(2, 2, 2))
    z = decoder.encode(x)
    assert z.shape == (100, 2, 2, 2)
    torch.testing.assert_close(decoder(z), x, atol=1e-4, rtol=0)


def test_a_latent_too_small_loses_what_no_linear_code_could_keep() -> None:
    x = images(100, rank=8)
    decoder = LinearDecoder.fitted(x, latent=(1, 2, 2))
    lost = (decoder(decoder.encode(x)) - x).double().square().sum()
    rows = x.flatten(1).double()
    spectrum = torch.linalg.svdvals(rows - rows.mean(0))
    torch.testing.assert_close(lost, spectrum[4:].square().sum(), rtol=1e-5, atol=0)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="channels, height and width"):
        LinearDecoder(latent=(2, 2), image=(3, 4, 4))
    with pytest.raises(ValueError, match="no larger than an image"):
        LinearDecoder(latent=(4, 4, 4), image=(3, 4, 4))
    with pytest.raises(ValueError, match="8 components need as many images, got 5"):
        LinearDecoder.fitted(images(5, rank=2), latent=(2, 2, 2))
