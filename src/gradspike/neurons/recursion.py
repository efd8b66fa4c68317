"""One step of the recursion of a leaky integrate-and-fire neuron, forward and backward.

    u[t] = tau * u[t-1] * (1 - s[t-1]) + x[t]        u[-1] = 0, hard reset to 0
    s[t] = 1 if u[t] >= theta[t] else 0

Every engine calls these functions or is tested against them. The membrane potential is local to an engine's call. No
module keeps it, so there is nothing to reset between batches.
"""

from __future__ import annotations

from torch import Tensor

from gradspike.surrogate import Surrogate


def charge(x: Tensor, u_previous: Tensor, s_previous: Tensor, decay: Tensor) -> Tensor:
    """u[t] from the current x[t] and the previous step, all [B, C, ...]; `decay` (tau) is a scalar."""
    return decay * u_previous * (1 - s_previous) + x


def fire(u: Tensor, theta: Tensor, kappa: Tensor, surrogate: Surrogate, smooth: bool) -> Tensor:
    """s[t], binary; with `smooth`, the surrogate's primitive, of which the backward step is the exact gradient."""
    return surrogate.primitive(u - theta, kappa) if smooth else u >= theta


def spike_adjoint(grad_s: Tensor, grad_u_next: Tensor | None, u: Tensor, decay: Tensor, detach_reset: bool) -> Tensor:
    """Total derivative of the loss with respect to s[t]: directly (`grad_s`) and through the reset of step t + 1.

    `grad_u_next` is dL/du[t+1], None at the last step.
    """
    if grad_u_next is None or detach_reset:
        return grad_s
    return grad_s - decay * u * grad_u_next


def membrane_adjoint(adjoint: Tensor, grad_u_next: Tensor | None, h: Tensor, s: Tensor, decay: Tensor) -> Tensor:
    """dL/du[t] = h(v[t]) * adjoint + tau * (1 - s[t]) * dL/du[t+1], which is also dL/dx[t]."""
    if grad_u_next is None:
        return h * adjoint
    return h * adjoint + decay * (1 - s) * grad_u_next
