"""Deformations against scipy's splines and interpolation, smooth filters against scipy's convolution."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import convolve, map_coordinates
from torch import nn

from tests.trainables.test_data import generator
from trainables.deformation import deform, random_deformations, smooth_filters_
from trainables.models import MODELS, build_model


def places(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.array(list(itertools.product(rows, columns)))


class TestRandomDeformations:
    @pytest.mark.parametrize(
        ("height", "width", "grid", "most"),
        [(32, 32, 3, 2.0), (32, 32, 2, 2.0), (28, 28, 4, 4.0), (12, 17, 3, 1.0), (96, 224, 5, 10.0), (8, 8, 9, 0.5)],
    )
    def test_it_is_scipy_s_thin_plate_spline(self, height: int, width: int, grid: int, most: float) -> None:
        """The same draws, each direction interpolated by scipy; the difference is float32's rounding of the field."""
        fields = random_deformations(3, height, width, grid, most, generator=generator(4))
        assert fields.shape == (3, height, width, 2)
        assert fields.dtype == torch.float32
        drawn = torch.rand(3, grid**2, 2, generator=generator(4)).double().numpy()
        points = places(np.linspace(0, height - 1, grid), np.linspace(0, width - 1, grid))
        pixels = places(np.arange(height), np.arange(width))
        for field, moved in zip(fields, most * (2 * drawn - 1), strict=True):
            spline = RBFInterpolator(points, moved, kernel="thin_plate_spline", degree=1)
            np.testing.assert_allclose(field.numpy(), spline(pixels).reshape(height, width, 2), rtol=0, atol=1e-5)

    def test_it_takes_the_drawn_displacements_at_control_points(self) -> None:
        """Uniform in [−max, max], down and right apart: mean 0, variance max²/3, no correlation."""
        fields = random_deformations(4000, 9, 9, 3, 2.0, generator=generator())
        corners = fields[:, ::4, ::4].reshape(-1, 2).double()
        assert float(corners.abs().max()) <= 2 + 1e-6
        assert float(corners.abs().max()) > 1.999
        # standard errors of 36,000 draws: 0.006 of the mean, 0.0063 of the variance, 0.0053 of the correlation
        assert corners.mean(0).abs().max() < 0.024
        assert (corners.var(0) - 4 / 3).abs().max() < 0.025
        assert abs(float(torch.corrcoef(corners.T)[0, 1])) < 0.021

    @pytest.mark.parametrize(
        ("size", "grid", "fields", "pixels", "most"), [(32, 3, 0.28, 0.0072, 1.19), (224, 5, 0.79, 0.0124, 1.33)]
    )
    def test_between_them_it_overshoots_as_documented(
        self, size: int, grid: int, fields: float, pixels: float, most: float
    ) -> None:
        """A hundred of the thousand fields of the docstring."""
        found = random_deformations(100, size, size, grid, 1.0, generator=generator()).abs()
        assert float((found.amax((1, 2, 3)) > 1).double().mean()) == pytest.approx(fields, abs=0.15)
        assert float((found > 1).any(3).double().mean()) == pytest.approx(pixels, rel=0.5)
        assert 1.05 < float(found.max()) <= most

    def test_equal_generators_give_equal_fields(self) -> None:
        one, same, other = (random_deformations(2, 16, 16, 3, 1.0, generator=generator(seed)) for seed in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
        assert not torch.equal(one[0], one[1])
        assert torch.equal(one, random_deformations(2, 16, 16, 3, 1.0, generator=generator(1), device="cpu"))

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
    def test_a_gpu_gives_the_same(self) -> None:
        there = random_deformations(4, 32, 32, 3, 2.0, generator=generator(), device="cuda")
        assert there.device.type == "cuda"
        here = random_deformations(4, 32, 32, 3, 2.0, generator=generator())
        torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-5)
        images = torch.rand(4, 3, 32, 32, generator=generator(1))
        torch.testing.assert_close(deform(images.cuda(), there).cpu(), deform(images, here), rtol=0, atol=1e-4)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"n": 0}, "n: 0"),
            ({"height": 1}, "height: 1"),
            ({"width": 1}, "width: 1"),
            ({"grid": 1}, "grid: 1"),
            ({"max_displacement": -1.0}, "max_displacement: -1.0"),
            ({"max_displacement": math.nan}, "max_displacement: nan"),
        ],
    )
    def test_what_is_no_deformation_is_refused(self, changed: dict[str, float], message: str) -> None:
        options = {"n": 1, "height": 8, "width": 8, "grid": 3, "max_displacement": 1.0} | changed
        with pytest.raises(ValueError, match=message):
            random_deformations(**options, generator=generator())


class TestDeform:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_it_is_scipy_s_interpolation(self, dtype: torch.dtype) -> None:
        """With displacements that reach beyond the image, whole ones and ones just below and above whole ones."""
        images = torch.rand(3, 2, 11, 17, generator=generator(), dtype=dtype)
        fields = 6 * torch.randn(3, 11, 17, 2, generator=generator(1))
        fields[1] = fields[1].round()
        fields[2] = fields[2].round() + 1e-7
        found = deform(images, fields)
        assert found.dtype == dtype
        grid = places(np.arange(11), np.arange(17)).reshape(11, 17, 2)
        for image, field, deformed in zip(images, fields, found, strict=True):
            source = np.moveaxis(grid + field.double().numpy(), 2, 0)
            for channel, own in zip(image, deformed, strict=True):
                expected = map_coordinates(channel.double().numpy(), source, order=1, mode="nearest")
                np.testing.assert_allclose(own.numpy(), expected, rtol=0, atol=1e-5)

    def test_the_direction(self) -> None:
        """A field of one pixel down: each place has what is below it, the last row what is on the border."""
        image = torch.arange(12.0).reshape(1, 1, 4, 3)
        down = torch.zeros(1, 4, 3, 2)
        down[..., 0] = 1
        assert torch.equal(deform(image, down)[0, 0], image[0, 0][[1, 2, 3, 3]])
        right = torch.zeros(1, 4, 3, 2)
        right[..., 1] = 0.5
        assert deform(image, right)[0, 0, 0].tolist() == [0.5, 1.5, 2.0]

    def test_no_displacement_changes_no_bit(self) -> None:
        images = torch.randn(4, 3, 9, 9, generator=generator())
        fields = random_deformations(4, 9, 9, 3, 0.0, generator=generator())
        assert torch.equal(deform(images, fields), images)
        channels_last = images.to(memory_format=torch.channels_last)
        assert torch.equal(deform(channels_last, fields), images)

    def test_what_does_not_fit_is_refused(self) -> None:
        images = torch.rand(2, 3, 8, 8)
        for shape in [(1, 8, 8, 2), (2, 8, 7, 2), (2, 8, 8), (2, 8, 8, 3)]:
            with pytest.raises(ValueError, match=r"displacements: of shape .* allowed are \(B, H, W, 2\)"):
                deform(images, torch.zeros(shape))
        with pytest.raises(ValueError, match="floating-point"):
            deform((255 * images).byte(), torch.zeros(2, 8, 8, 2))


class TestSmoothFilters:
    def network(self, seed: int = 0) -> nn.Sequential:
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.Conv2d(4, 4, 5, groups=4),
            nn.Conv2d(4, 4, 1),
            nn.Conv2d(4, 4, 2, 2),
            nn.Conv2d(4, 4, (1, 7)),
            nn.Linear(4, 2),
        )

    @pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
    def test_slices_are_convolved_as_scipy_does(self, sigma: float) -> None:
        """The Gaussian on the kernel's own pixels, on 3×3 for 2×2; then the layer's deviation as it was."""
        plain, smooth = self.network(), self.network()
        smooth_filters_(smooth, sigma)
        for index, window in ((0, (3, 3)), (1, (5, 5)), (3, (3, 3)), (4, (1, 7))):
            before, after = (network[index].weight.detach().double().numpy() for network in (plain, smooth))
            rows, columns = (np.arange(size) - size // 2 for size in window)
            gaussian = np.exp(-(rows[:, None] ** 2 + columns**2) / (2 * sigma**2))
            gaussian /= gaussian.sum()
            slices = before.reshape(-1, *before.shape[2:])
            expected = np.stack([convolve(each, gaussian, mode="constant") for each in slices]).reshape(before.shape)
            expected *= before.std() / expected.std()
            np.testing.assert_allclose(after, expected, rtol=0, atol=1e-6)
            assert after.std() == pytest.approx(before.std(), rel=1e-6)

    def test_what_is_not_smoothed(self) -> None:
        plain, smooth, same = self.network(), self.network(), self.network()
        smooth_filters_(smooth, 2.0)
        smooth_filters_(same, 0.0)
        changed = {"0.weight", "1.weight", "3.weight", "4.weight"}
        for name, value in plain.state_dict().items():
            assert torch.equal(value, same.state_dict()[name])
            assert torch.equal(value, smooth.state_dict()[name]) == (name not in changed)
        assert smooth[0].weight.requires_grad
        assert smooth[0].weight.grad_fn is None

    def test_a_tiny_sigma_changes_next_to_nothing(self) -> None:
        plain, smooth = self.network(), self.network()
        smooth_filters_(smooth, 1e-200)
        for before, after in zip(plain.parameters(), smooth.parameters(), strict=True):
            torch.testing.assert_close(before, after, rtol=1e-6, atol=0)

    def test_a_layer_without_deviation_is_left(self) -> None:
        layer = nn.Conv2d(2, 2, 3)
        nn.init.constant_(layer.weight, 0.5)
        smooth_filters_(layer, 1.0)
        assert bool((layer.weight == 0.5).all())

    @pytest.mark.parametrize("sigma", [-1.0, math.nan, math.inf])
    def test_what_is_no_deviation_is_refused(self, sigma: float) -> None:
        with pytest.raises(ValueError, match="sigma"):
            smooth_filters_(self.network(), sigma)

    @pytest.mark.parametrize("name", ["lenet5", "resnet8", "vgg-cifar", "mobilenet", "efficientnet-b0"])
    def test_registered_networks(self, name: str) -> None:
        width = 8 if MODELS[name].any_width else None
        network = build_model(name, channels=3, size=32, classes=5, width=width, seed=0)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        smooth_filters_(network, 1.0)
        for key, value in network.state_dict().items():
            assert torch.equal(value, before[key]) == (value.ndim != 4 or max(value.shape[2:]) == 1), key
            assert bool(value.isfinite().all())
