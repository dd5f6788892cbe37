"""Augmentation on batches: parameters are sampled once, then applied, so any image can be replayed.

No recipe mirrors an image: laterality means something. Mirroring is added only when the
data set's card lists ``horizontal`` among its allowed flips. The ``robust`` recipe attacks what a
reader can cheat with: aspect ratio, exposure, sharpness, resolution, noise and the frame of the film.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from wetread.errors import UsageError, expected
from wetread.types import Record

__all__ = ["RECIPES", "AugmentParameters", "Recipe", "apply", "recipe_named", "sample", "warp"]

_BLUR_WIDTH = 5
"""Kernel (pixels) whose difference to the image is added (sharpen) or taken away (soften)."""


class Recipe(Record):
    """Ranges of one recipe; each 0 (or chance 0) switches its part off.

    ``zoom``: (smallest, largest) share of the image shown. ``log_aspect``, ``log_gamma``,
    ``log_contrast``: half ranges of a logarithm. ``brightness``, ``noise``: in units of [0, 1]
    pixels. Chances are per image.
    """

    rotation_degrees: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    log_aspect: float = 0.0
    shift: float = 0.0
    log_gamma: float = 0.0
    log_contrast: float = 0.0
    brightness: float = 0.0
    sharpness: float = 0.0
    resolution_chance: float = 0.0
    smallest_resolution: float = 0.4
    noise: float = 0.0
    frame_chance: float = 0.0
    frame_width: float = 0.12
    erase_chance: float = 0.0
    mirror: bool = False


RECIPES = {
    "none": Recipe(),
    "light": Recipe(rotation_degrees=10, zoom=(0.9, 1.0), log_aspect=0.05, shift=0.05),
    "robust": Recipe(
        rotation_degrees=12,
        zoom=(0.80, 1.08),
        log_aspect=0.15,
        shift=0.07,
        log_gamma=0.35,
        log_contrast=0.25,
        brightness=0.10,
        sharpness=1.0,
        resolution_chance=0.2,
        noise=0.03,
        frame_chance=0.2,
        erase_chance=0.2,
    ),
    # For images that were squeezed into squares: how much is then a property of the source, and often of the class.
    "squeezed": Recipe(
        rotation_degrees=12,
        zoom=(0.75, 1.05),
        log_aspect=0.5,
        shift=0.07,
        log_gamma=0.35,
        log_contrast=0.25,
        brightness=0.10,
        sharpness=1.0,
        resolution_chance=0.2,
        noise=0.03,
        frame_chance=0.2,
        erase_chance=0.2,
    ),
    # For organs: wider than any patient or exposure, because a mask follows the image wherever it goes.
    "organs": Recipe(
        rotation_degrees=15,
        zoom=(0.7, 1.3),
        log_aspect=0.4,
        shift=0.1,
        log_gamma=0.6,
        log_contrast=0.5,
        brightness=0.15,
        sharpness=1.0,
        resolution_chance=0.3,
        noise=0.06,
        frame_chance=0.3,
        erase_chance=0.3,
    ),
    # Published for COVID / pneumonia / normal: zoom range .3, rotation 20 degrees, no flips.
    "s6": Recipe(rotation_degrees=20, zoom=(0.7, 1.3)),
}


@dataclass(frozen=True, slots=True)
class AugmentParameters:
    """What happens to each of N images. All tensors have N rows; see :func:`apply` for their use."""

    angle: Tensor
    scale: Tensor
    log_aspect: Tensor
    shift: Tensor
    log_gamma: Tensor
    log_contrast: Tensor
    brightness: Tensor
    sharpness: Tensor
    resolution: Tensor
    noise: Tensor
    noise_seed: Tensor
    frame: Tensor
    frame_value: Tensor
    erase: Tensor
    mirror: Tensor

    def row(self, index: int) -> AugmentParameters:
        """The parameters of one image, as a batch of one."""
        return AugmentParameters(*(getattr(self, field.name)[index : index + 1] for field in fields(self)))

    def to(self, device: torch.device) -> AugmentParameters:
        """The same parameters where the images are."""
        return AugmentParameters(*(getattr(self, field.name).to(device) for field in fields(self)))


def recipe_named(name: str, allowed_flips: tuple[str, ...] = ()) -> Recipe:
    """Return a recipe by name; mirrored only when the data set allows ``horizontal`` flips.

    Raises:
        UsageError: there is no such recipe.
    """
    if name not in RECIPES:
        raise UsageError(expected(f"one of the recipes {', '.join(RECIPES)}", repr(name), "set --augment to one"))
    return RECIPES[name].model_copy(update={"mirror": name != "none" and "horizontal" in allowed_flips})


def sample(recipe: Recipe, count: int, generator: torch.Generator) -> AugmentParameters:
    """Draw the parameters of ``count`` images."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    def around_zero(half_range: float, *shape: int) -> Tensor:
        return (uniform(*shape) * 2 - 1) * half_range

    low, high = recipe.zoom
    coarse = recipe.smallest_resolution + uniform() * (1 - recipe.smallest_resolution)
    framed = (uniform() < recipe.frame_chance).float()
    erased = (uniform() < recipe.erase_chance).float()
    return AugmentParameters(
        angle=around_zero(recipe.rotation_degrees) * math.pi / 180,
        scale=low + uniform() * (high - low),
        log_aspect=around_zero(recipe.log_aspect),
        shift=around_zero(recipe.shift, 2),
        log_gamma=around_zero(recipe.log_gamma),
        log_contrast=around_zero(recipe.log_contrast),
        brightness=around_zero(recipe.brightness),
        sharpness=around_zero(1.0) * recipe.sharpness,
        resolution=torch.where(uniform() < recipe.resolution_chance, coarse, torch.ones(count)),
        noise=uniform() * recipe.noise,
        noise_seed=torch.randint(2**31, (count,), generator=generator),
        frame=uniform(4) * recipe.frame_width * framed[:, None],
        frame_value=uniform(),
        erase=torch.cat([uniform(2), (0.1 + 0.2 * uniform(2)) * erased[:, None], uniform(1)], 1),
        mirror=(uniform() < 0.5) & recipe.mirror,
    )


def apply(batch: Tensor, params: AugmentParameters) -> Tensor:
    """Apply the parameters to float32 (N, 1, H, W) in [0, 1]; same shape and range."""
    params = params.to(batch.device)
    batch = warp(batch, params)
    batch = _expose(batch, params)
    batch = _resolve(batch, params)
    batch = _grain(batch, params)
    return _cover(batch, params)


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def warp(batch: Tensor, params: AugmentParameters) -> Tensor:
    """Rotate, zoom, stretch, shift and (only if allowed) mirror float32 (N, C, H, W); 0 outside. Masks move alike."""
    cos, sin = params.angle.cos(), params.angle.sin()
    x_scale = params.scale * torch.exp(params.log_aspect / 2) * torch.where(params.mirror, -1.0, 1.0)
    y_scale = params.scale * torch.exp(-params.log_aspect / 2)
    rows = (
        torch.stack([cos * x_scale, -sin * y_scale, params.shift[:, 0]], 1),
        torch.stack([sin * x_scale, cos * y_scale, params.shift[:, 1]], 1),
    )
    matrix = torch.stack(rows, 1)  # (N, 2, 3)
    if torch.equal(matrix, torch.eye(2, 3, device=matrix.device).expand_as(matrix)):
        return batch
    grid = F.affine_grid(matrix, list(batch.shape), align_corners=False)
    return F.grid_sample(batch, grid, align_corners=False)


def _expose(batch: Tensor, params: AugmentParameters) -> Tensor:
    """Gamma, contrast about the image's mean, brightness; a recipe without them changes no bit."""
    if not (params.log_gamma.any() or params.log_contrast.any() or params.brightness.any()):
        return batch
    batch = batch.clamp(1e-4, 1) ** _column(params.log_gamma.exp())
    mean = batch.mean((2, 3), keepdim=True)
    return ((batch - mean) * _column(params.log_contrast.exp()) + mean + _column(params.brightness)).clamp(0, 1)


def _resolve(batch: Tensor, params: AugmentParameters) -> Tensor:
    """Sharpen or soften; then, for the chosen images, lose resolution and come back."""
    margin = _BLUR_WIDTH // 2
    if params.sharpness.any():
        padded = F.pad(batch, (margin,) * 4, mode="replicate")
        blurred = F.avg_pool2d(F.avg_pool2d(padded, (_BLUR_WIDTH, 1), 1), (1, _BLUR_WIDTH), 1)  # twice 5 sums, not 25
        strength = _column(params.sharpness.clamp(min=-0.8))  # beyond -1 it would invert detail
        batch = (batch + strength * (batch - blurred)).clamp(0, 1)
    shares = params.resolution.tolist()
    if min(shares) >= 1:
        return batch
    batch = batch.clone()
    height, width = batch.shape[2:]
    for i, share in enumerate(shares):
        if share < 1:
            batch[i : i + 1] = _lose_resolution(batch[i : i + 1], share, height, width)
    return batch


def _lose_resolution(image: Tensor, share: float, height: int, width: int) -> Tensor:
    small = (max(8, int(height * share)), max(8, int(width * share)))
    coarse = F.interpolate(image, size=small, mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)


def _grain(batch: Tensor, params: AugmentParameters) -> Tensor:
    """Add Gaussian noise; each image has a seed of its own, so it can be replayed alone."""
    if not params.noise.any():
        return batch
    grains = []
    for seed in params.noise_seed.tolist():
        grains.append(torch.randn(batch.shape[1:], generator=torch.Generator().manual_seed(seed)))
    return (batch + torch.stack(grains).to(batch.device) * _column(params.noise)).clamp(0, 1)


def _cover(batch: Tensor, params: AugmentParameters) -> Tensor:
    """Paint over the frame of some images and a rectangle of some, in one grey each."""
    height, width = batch.shape[2:]
    batch = batch.clone()
    for image, frame, grey, erase in zip(
        batch, params.frame.tolist(), params.frame_value.tolist(), params.erase.tolist(), strict=True
    ):
        if any(frame):
            top, bottom, left, right = (
                int(part * side) for part, side in zip(frame, (height, height, width, width), strict=True)
            )
            image[:, :top] = grey
            image[:, height - bottom :] = grey
            image[:, :, :left] = grey
            image[:, :, width - right :] = grey
        y, x, tall, wide, value = erase
        if tall or wide:
            rows, columns = int(tall * height), int(wide * width)
            y0, x0 = int(y * (height - rows)), int(x * (width - columns))
            image[:, y0 : y0 + rows, x0 : x0 + columns] = value
    return batch
