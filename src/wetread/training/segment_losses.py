"""Segmentation losses, chosen by name, in which organs that nobody annotated count for nothing.

Each loss is one number for each organ of each image, (N, C), and the mean is over the known ones.
Notation: p the predicted probability, t the target, T = Σt, P = Σp, sums over pixels,
TP = Σ (p + t - |p - t|) / 2. For hard masks TP = Σpt; for soft masks only this form has its
minimum at p = t (Wang et al., Dice Semimetric Losses, MICCAI 2023).

Empty masks: s, a thousandth of the pixels, is added to numerator and denominator. With t = 0 Dice
is then P / (P + s): 0 for an empty prediction, and it falls as the prediction shrinks. An organ is
some hundredths of a film, so s hardly changes its value.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wetread.errors import UsageError, expected

__all__ = ["SEGMENT_LOSSES", "segment_loss"]

_SMOOTHING = 1e-3
"""s as a share of the pixels of an image, so that it means the same at any size."""

_ROUNDING = 1e-3
"""Warped and interpolated masks miss 0, 1 and their sum by rounding; wrong masks miss by far more."""

_FOCAL_GAMMA = 2.0
"""Lin et al., ICCV 2017: the best of 0 to 5."""

_TVERSKY_FALSE_POSITIVE, _TVERSKY_FALSE_NEGATIVE = 0.3, 0.7
"""Alpha and beta of Salehi et al., MLMI 2017: a missed pixel costs more than an extra one."""

_FOCAL_TVERSKY_GAMMA = 4 / 3
"""Abraham and Khan, ISBI 2019."""

_LEAST = 1e-7
"""The slope of x ** 0.75 is infinite at 0, and rounding can make 1 - TI negative."""

_BOUNDARY_WEIGHT = 10.0
"""For p = 1/2 everywhere and a disc of radius 0.1, 0.2, 0.3 sides: Dice 0.94, 0.80, 0.64, boundary
term 1.4, 1.0, 0.7. In pixels at side 256 it would be 0.04; the article goes from 0.01 up."""

_PRIOR_MARGIN = 0.1
"""How far the region made from the targets reaches beyond them, in sides of the image."""

_OUTSIDE_WEIGHT, _AREA_WEIGHT = 1.0, 0.1
"""The share outside is in [0, 1], like Dice. |log| reaches 2 to 7 at the start; 0.1 keeps it below Dice."""


@dataclass(frozen=True)
class _Maps:
    """What a loss is computed from. All (N, C, H, W) but ``known``, bool (N, C)."""

    logits: Tensor
    p: Tensor
    t: Tensor
    known: Tensor
    region: Tensor | None
    softmax: bool

    @property
    def s(self) -> float:
        """The smoothing in pixels."""
        return _SMOOTHING * self.t.shape[2] * self.t.shape[3]

    @property
    def classes(self) -> int:
        """C with softmax, else 1: makes the mean over organs of a sum over exclusive classes that sum."""
        return self.t.shape[1] if self.softmax else 1


def segment_loss(
    name: str,
    logits: Tensor,
    targets: Tensor,
    *,
    softmax: bool,
    known: Tensor | None = None,
    region: Tensor | None = None,
) -> Tensor:
    """Mean of a loss over the known organs of all images; a scalar >= 0, and 0 when none is known.

    Args:
        name: one of ``SEGMENT_LOSSES``.
        logits: float32 (N, C, H, W).
        targets: float32 (N, C, H, W) in [0, 1]. With softmax they add up to 1 over C (background
            is then a class like the others); without, organs may overlap.
        softmax: exclusive classes; otherwise one sigmoid for each organ.
        known: bool (N, C), which organs of which image are annotated; all when None. Targets of
            unknown organs may hold anything, NaN too. With softmax: all or none of an image.
        region: float (N, C, H, W) or (C, H, W) in [0, 1], where an organ can be; only
            ``region-dice`` reads it. None: the targets, widened by a tenth of the side.

    Raises:
        UsageError: an unknown name; shapes, ranges or ``known`` that do not fit.
    """
    if name not in _TERMS:
        near = difflib.get_close_matches(name, SEGMENT_LOSSES, n=1, cutoff=0.3) or SEGMENT_LOSSES
        cure = f"use {near[0]!r}, or another of {', '.join(SEGMENT_LOSSES)}"
        raise UsageError(expected("the name of a segmentation loss", repr(name), cure))
    maps = _checked(logits, targets, known, softmax=softmax, region=region if name == "region-dice" else None)
    terms = _TERMS[name](maps)  # (N, C)
    return (terms * maps.known).sum() / maps.known.sum().clamp(min=1)


def _checked(logits: Tensor, targets: Tensor, known: Tensor | None, *, softmax: bool, region: Tensor | None) -> _Maps:
    if logits.ndim != 4 or targets.shape != logits.shape:
        got = f"{tuple(logits.shape)} and {tuple(targets.shape)}"
        raise UsageError(expected("logits and targets of one shape (N, C, H, W)", got, "give a mask for each output"))
    known = _known(known, logits, softmax=softmax)
    # where, not a product: 0 * NaN is NaN.
    t = torch.where(known[:, :, None, None], targets.float(), 0.0)
    _require_shares(t, "targets")
    if softmax:
        _require_exclusive(t[known.all(1)])
    if region is not None:
        region = _region(region, logits)
    z = logits.float()  # under autocast they may be float16, whose sums overflow at 65504
    return _Maps(z, z.softmax(1) if softmax else z.sigmoid(), t, known, region, softmax)


def _known(known: Tensor | None, logits: Tensor, *, softmax: bool) -> Tensor:
    shape = logits.shape[:2]
    if known is None:
        return torch.ones(shape, dtype=torch.bool, device=logits.device)
    if known.dtype != torch.bool or known.shape != shape:
        got = f"{known.dtype} {tuple(known.shape)}"
        raise UsageError(expected(f"known as bool {tuple(shape)}", got, "say for each image which organs are drawn"))
    partly = known.any(1) & ~known.all(1)
    if softmax and bool(partly.any()):
        row = int(partly.nonzero()[0])
        got = f"{int(known[row].sum())} of {shape[1]} in image {row} of the batch"
        raise UsageError(expected("all organs of an image known, or none, with softmax", got, "use softmax=False"))
    return known


def _require_shares(values: Tensor, what: str) -> None:
    # A comparison with NaN is false, so NaN is refused too.
    if not bool(((values >= -_ROUNDING) & (values <= 1 + _ROUNDING)).all()):
        raise UsageError(expected(f"{what} in [0, 1]", "values outside or NaN", "divide 8-bit masks by 255"))


def _require_exclusive(t: Tensor) -> None:
    if t.shape[1] < 2:
        raise UsageError(expected("2 or more classes with softmax", t.shape[1], "use softmax=False"))
    if bool(((t.sum(1) - 1).abs() > _ROUNDING).any()):
        cure = "add a background class, or use softmax=False for organs that overlap"
        raise UsageError(expected("targets that add up to 1 in each pixel with softmax", "other sums", cure))


def _region(region: Tensor, logits: Tensor) -> Tensor:
    if region.shape not in (logits.shape, logits.shape[1:]):
        wanted = f"region of shape {tuple(logits.shape)} or {tuple(logits.shape[1:])}"
        raise UsageError(expected(wanted, tuple(region.shape), "give one map for each organ"))
    _require_shares(region, "region")
    return region.to(logits.device, torch.float32).expand(logits.shape)


def _dice(maps: _Maps) -> Tensor:
    """1 - (2 TP + s) / (P + T + s). Plain sums below: Drozdzal et al., DLMIA 2016."""
    from monai.losses.dice import DiceLoss

    loss = DiceLoss(reduction="none", smooth_nr=maps.s, smooth_dr=maps.s, soft_label=True)
    terms: Tensor = loss(maps.p, maps.t)  # (N, C, 1, 1)
    return terms.flatten(1)


def _squared_dice(maps: _Maps) -> Tensor:
    """1 - (2 Σpt + s) / (Σp² + Σt² + s). Milletari et al., V-Net, 3DV 2016."""
    from monai.losses.dice import DiceLoss

    loss = DiceLoss(reduction="none", squared_pred=True, smooth_nr=maps.s, smooth_dr=maps.s, soft_label=True)
    terms: Tensor = loss(maps.p, maps.t)  # (N, C, 1, 1)
    return terms.flatten(1)


def _generalised_dice(maps: _Maps) -> Tensor:
    """1 - (2 Σ w TP + s) / (Σ w (P + T) + s), w = 1 / T², sums over the known organs of an image.

    Sudre et al., DLMIA 2017. The value belongs to the image; each of its known organs gets it, so
    that images count by their known organs, as in the other losses. Weights are relative to the
    smallest organ, and an empty organ weighs as much as that one, as in NiftyNet.
    """
    # Own code: monai gives an image without any organ weight 0, so nothing would empty its prediction.
    predicted, true = maps.p.sum((2, 3)), maps.t.sum((2, 3))
    both = (predicted + true - (maps.p - maps.t).abs().sum((2, 3))) / 2
    smallest = torch.where(true > 0, true, torch.inf).amin(1, keepdim=True)
    weights = torch.where(true > 0, (smallest / true) ** 2, 1.0) * maps.known
    above = 2 * (weights * both).sum(1, keepdim=True) + maps.s
    below = (weights * (predicted + true)).sum(1, keepdim=True) + maps.s
    return (1 - above / below).expand_as(true)


def _dice_ce(maps: _Maps) -> Tensor:
    """Dice + cross-entropy, weights 1 and 1. Isensee et al., nnU-Net, Nature Methods 2021.

    Softmax: mean over pixels of -Σ t log p, the sum over classes. Sigmoid: mean over pixels of
    -t log p - (1 - t) log(1 - p).
    """
    if maps.softmax:
        each = -maps.t * F.log_softmax(maps.logits, 1)
    else:
        each = F.binary_cross_entropy_with_logits(maps.logits, maps.t, reduction="none")
    return _dice(maps) + maps.classes * each.mean((2, 3))


def _dice_focal(maps: _Maps) -> Tensor:
    """Dice + focal loss, weights 1 and 1: cross-entropy times (1 - p_true)², p_true = p where t = 1.

    Zhu et al., AnatomyNet, Medical Physics 2019; focal: Lin et al., ICCV 2017, without alpha.
    """
    from monai.losses.focal_loss import FocalLoss

    loss = FocalLoss(gamma=_FOCAL_GAMMA, use_softmax=maps.softmax, reduction="none")
    each: Tensor = loss(maps.logits, maps.t)
    return _dice(maps) + maps.classes * each.mean((2, 3))


def _tversky(maps: _Maps) -> Tensor:
    """1 - TI, TI = (TP + s/2) / (TP + 0.3 FP + 0.7 FN + s/2). Salehi et al., MLMI 2017.

    FP = P - TP, FN = T - TP. With s/2, weights of 0.5 and 0.5 would be Dice.
    """
    from monai.losses.tversky import TverskyLoss

    loss = TverskyLoss(
        alpha=_TVERSKY_FALSE_POSITIVE,
        beta=_TVERSKY_FALSE_NEGATIVE,
        reduction="none",
        smooth_nr=maps.s / 2,
        smooth_dr=maps.s / 2,
        soft_label=True,
    )
    terms: Tensor = loss(maps.p, maps.t)
    return terms


def _focal_tversky(maps: _Maps) -> Tensor:
    """(1 - TI) ** (1 / gamma), gamma = 4/3: steeper near the end. Abraham and Khan, ISBI 2019."""
    return _tversky(maps).clamp(min=_LEAST) ** (1 / _FOCAL_TVERSKY_GAMMA)


def _log_cosh_dice(maps: _Maps) -> Tensor:
    """log(cosh(Dice)). Jadon, CIBCB 2020."""
    return _dice(maps).cosh().log()


def _boundary(maps: _Maps) -> Tensor:
    """Dice + 10 mean(φ (p - t)), φ the signed distance to the edge of the target, in sides.

    Kervadec et al., MIDL 2019, who drop the constant -φt; with it a perfect prediction gives 0.
    Soft targets count as t >= 0.5 in the second term.
    """
    wrong = maps.p - (maps.t >= 0.5).float()
    return _dice(maps) + _BOUNDARY_WEIGHT * (_signed_distance(maps.t) * wrong).mean((2, 3))


def _signed_distance(t: Tensor) -> Tensor:
    """Distance of each pixel centre to the edge of its mask, below 0 inside, float32 (N, C, H, W).

    In sides of the image (the longer one). The edge runs half a pixel from the centres beside it.
    An empty mask has +1/2 everywhere and a full one -1/2: there is no edge, so half a side is assumed.
    """
    from monai.transforms.utils import distance_transform_edt

    side = max(t.shape[2:])
    inside = (t.detach() >= 0.5).flatten(0, 1)  # (N C, H, W)
    signed = torch.where(inside, -0.5, 0.5) * side
    edged = inside.any(2).any(1) & ~inside.all(2).all(1)
    if bool(edged.any()):
        masks = inside[edged].cpu().numpy()
        outer, inner = np.asarray(distance_transform_edt(~masks)), np.asarray(distance_transform_edt(masks))
        signed[edged] = torch.from_numpy(np.where(masks, 0.5 - inner, outer - 0.5)).to(signed)
    return (signed / side).view_as(t)


def _region_dice(maps: _Maps) -> Tensor:
    """Dice + Σ p (1 - R) / (P + s) + 0.1 |log((P + s) / (T + s))|, R the region where the organ can be.

    The second term is the share of the predicted area that lies outside R, the third compares
    areas. Own; the idea, to restrict the predicted region, is from arXiv 1808.08277.
    """
    given = _widened(maps.t) if maps.region is None else maps.region
    # A prior that cuts off part of the true organ must not punish the truth.
    region = torch.maximum(given, maps.t)
    predicted, true = maps.p.sum((2, 3)) + maps.s, maps.t.sum((2, 3)) + maps.s
    outside = (maps.p * (1 - region)).sum((2, 3)) / predicted
    return _dice(maps) + _OUTSIDE_WEIGHT * outside + _AREA_WEIGHT * (predicted / true).log().abs()


def _widened(t: Tensor) -> Tensor:
    """Each mask dilated by a square that reaches a tenth of the longer side in each direction."""
    reach = max(1, round(_PRIOR_MARGIN * max(t.shape[2:])))
    # A row and then a column: the same square, and k steps for each pixel in place of k².
    rows = F.max_pool2d(t, (1, 2 * reach + 1), stride=1, padding=(0, reach))
    return F.max_pool2d(rows, (2 * reach + 1, 1), stride=1, padding=(reach, 0))


_TERMS: dict[str, Callable[[_Maps], Tensor]] = {
    "dice": _dice,
    "squared-dice": _squared_dice,
    "generalised-dice": _generalised_dice,
    "dice-ce": _dice_ce,
    "dice-focal": _dice_focal,
    "tversky": _tversky,
    "focal-tversky": _focal_tversky,
    "log-cosh-dice": _log_cosh_dice,
    "boundary": _boundary,
    "region-dice": _region_dice,
}

SEGMENT_LOSSES: tuple[str, ...] = tuple(_TERMS)
"""The names that ``segment_loss`` knows."""
