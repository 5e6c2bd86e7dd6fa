"""Linear layers by least squares, from the second moments of their inputs and of the outputs that they should have.

For inputs x and targets y, with means μ and covariances C over all tokens, the layer nearest to y is

    W = W₀ + (C_yx - W₀ C_xx) (C_xx + r·I)⁻¹,    b = μ_y - W μ_x

r is a ridge, relative to the mean of the diagonal of C_xx. It draws W towards W₀, the weights of a teacher: where the
text does not vary along a direction of x, they stay. A layer with groups is one such problem per group.

Sums are in fp64, batch by batch in the order of the text: memory does not grow with the text, and the same text gives
the same bits.

Shapes: N tokens, K inputs, M targets, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketbert.errors import DataError

#: Of the mean variance of inputs: a larger one keeps more of the teacher's weights.
RIDGE = 1e-3
#: Tokens per input of a layer below which the fit follows the noise of the text: the error on other text is doubled.
TOKENS_PER_INPUT = 2


class Moments:
    """Sums over tokens of x, y and their products.

    Args:
        inputs: K.
        targets: M.
        groups: G; products are summed only within each group of inputs, and with its group of targets.
        device: where x and y are.
    """

    def __init__(self, inputs: int, targets: int, groups: int = 1, device: torch.device | None = None) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.tokens, self.groups = 0, groups
        self._x, self._y, self._yy = zeros(inputs), zeros(targets), zeros(targets)
        self._xx = zeros(groups, inputs // groups, inputs // groups)
        self._xy = zeros(groups, inputs // groups, targets // groups)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add the tokens of x [N, K] and y [N, M]."""
        x, y = x.double(), y.double()
        self.tokens += len(x)
        self._x += x.sum(0)
        self._y += y.sum(0)
        self._yy += y.square().sum(0)
        parts = x.unflatten(1, (self.groups, -1)).permute(1, 2, 0)  # [G, K/G, N]
        self._xx += parts @ parts.transpose(1, 2)
        self._xy += parts @ y.unflatten(1, (self.groups, -1)).transpose(0, 1)

    def covariance(self, where: str) -> Covariance:
        """Return means and covariances; `where` names the layer in messages.

        Raises:
            DataError: there are too few tokens, or the inputs do not vary or are not finite.
        """
        columns = self._xx.size(1)
        if self.tokens < TOKENS_PER_INPUT * columns:
            raise DataError(
                f"{self.tokens:,} tokens are too few to fit a layer of {columns:,} inputs ({where}): at least "
                f"{TOKENS_PER_INPUT * columns:,} are needed (--init-tokens)"
            )
        x, y = self._x / self.tokens, self._y / self.tokens
        x_parts, y_parts = x.view(self.groups, -1, 1), y.view(self.groups, 1, -1)
        return Covariance(
            x_mean=x.cpu(),
            y_mean=y.cpu(),
            y_variance=(self._yy / self.tokens - y.square()).clamp_min(0).cpu(),
            xx=(self._xx / self.tokens - x_parts @ x_parts.transpose(1, 2)).cpu(),
            xy=(self._xy / self.tokens - x_parts @ y_parts).cpu(),
            where=where,
        )


@dataclass(frozen=True)
class Covariance:
    """Means and covariances of the inputs and targets of a layer, in fp64."""

    x_mean: Tensor
    """[K]"""
    y_mean: Tensor
    """[M]"""
    y_variance: Tensor
    """[M]"""
    xx: Tensor
    """[G, K/G, K/G] within each group of inputs."""
    xy: Tensor
    """[G, K/G, M/G] of each group of inputs with its group of targets."""
    where: str
    """The name of the layer, for messages."""

    def rows(self, chosen: Tensor) -> Covariance:
        """Return the same with the targets `chosen`, in this order. There must be one group."""
        return Covariance(
            self.x_mean, self.y_mean[chosen], self.y_variance[chosen], self.xx, self.xy[..., chosen], self.where
        )

    def divided(self, groups: int) -> Covariance:
        """Return the blocks on the diagonal, for a layer with so many groups. There must be one group."""
        xx = self.xx[0].unflatten(0, (groups, -1)).unflatten(2, (groups, -1)).diagonal(dim1=0, dim2=2)
        xy = self.xy[0].unflatten(0, (groups, -1)).unflatten(2, (groups, -1)).diagonal(dim1=0, dim2=2)
        return Covariance(
            self.x_mean, self.y_mean, self.y_variance, xx.permute(2, 0, 1), xy.permute(2, 0, 1), self.where
        )

    def unexplained(self, groups: int, ridge: float) -> Tensor:
        """Return [M, groups] how much of each target's variance the best function of each group of inputs leaves.

        There must be one group.
        """
        xx = self.divided(groups).xx
        xy = self.xy[0].unflatten(0, (groups, -1))  # [groups, K/groups, M]
        explained = (xy * self._solve(xx, xy, ridge)).sum(1)  # [groups, M]
        return (self.y_variance - explained).clamp_min(0).T

    def solve(self, prior: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
        """Return the weights [M, K/G] and the bias [M] of the layer, for the teacher's weights `prior` [M, K/G]."""
        groups = len(self.xx)
        start = prior.double().cpu().unflatten(0, (groups, -1)).transpose(1, 2)  # [G, K/G, M/G]
        weight = start + self._solve(self.xx, self.xy - self.xx @ start, ridge)
        mean = (self.x_mean.view(groups, 1, -1) @ weight).flatten()  # [M]
        return weight.transpose(1, 2).flatten(0, 1), self.y_mean - mean

    def directions(self, rank: int, ridge: float) -> Tensor:
        """Return [rank, K] the directions of the inputs from which a regression of this rank is best.

        Along them, the inputs are uncorrelated and have a variance of 1. There must be one group.
        """
        values, vectors = torch.linalg.eigh(self._damped(self.xx, ridge)[0])
        whiten = vectors @ (values.rsqrt()[:, None] * vectors.T)  # [K, K]
        return torch.linalg.svd(self.xy[0].T @ whiten, full_matrices=False)[2][:rank] @ whiten

    def _damped(self, xx: Tensor, ridge: float) -> Tensor:
        """Return xx + r·I. Raises `DataError` if that is not positive definite."""
        size = xx.diagonal(dim1=1, dim2=2).mean(1)
        if not torch.isfinite(xx).all():
            raise DataError(f"the activations at {self.where} are not finite: the weights of the teacher are damaged")
        damped = xx + (ridge * size)[:, None, None] * torch.eye(xx.size(1), dtype=xx.dtype)
        if (size <= 0).any() or torch.linalg.cholesky_ex(damped)[1].any():
            raise DataError(
                f"the activations at {self.where} hardly vary over the text, so that least squares has no unique "
                f"solution (their covariance is singular): use more varied text"
            )
        return damped

    def _solve(self, xx: Tensor, right: Tensor, ridge: float) -> Tensor:
        """Return (xx + r·I)⁻¹ right."""
        return torch.cholesky_solve(right, torch.linalg.cholesky(self._damped(xx, ridge)))


class NormFit:
    """The gain and bias of a norm, fitted so that normalised inputs [N, width] become targets [N, width]."""

    def __init__(self, width: int, device: torch.device | None = None) -> None:
        self._sums = torch.zeros(5, width, dtype=torch.float64, device=device)  # tokens, x, y, xx, xy

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        """Add the tokens of a batch."""
        x, y = F.layer_norm(inputs.double(), inputs.shape[-1:]), targets.double()
        self._sums += torch.stack([torch.ones_like(x), x, y, x * x, x * y]).sum(1)

    def set(self, norm: nn.Module) -> None:
        """Set the parameters of a layer norm."""
        x, y, xx, xy = self._sums[1:] / self._sums[0]
        gain = (xy - x * y) / (xx - x * x).clamp_min(1e-12)
        norm.load_state_dict({"weight": gain, "bias": y - gain * x})
