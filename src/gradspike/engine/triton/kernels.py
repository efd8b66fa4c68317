"""Norm and neuron of one layer over all its steps as Triton kernels; `engine` launches them, `tiles` has their parts.

A tile is [BLOCK_M, BLOCK_C]: values of one step by channels. `rows` [M, C] have channels along the fast axis and wide
tiles; `planes` [P, C, S] have M = P * S values per channel and tiles of a single channel. Program p computes the
channels of block p % blocks and every `parts`-th tile along M, so neighbours in the grid are neighbours in memory. Each
program stores one partial sum over M. The order of summation is fixed, so results are the same bit for bit in each run.

Common arguments:
    M, C, S: values per channel in a step, channels, values per plane (1 for rows).
    STEP: elements of one step, M * C.
    parts, per: programs along M, and tiles of each.
    DT: dtype of the recursion. WIDE: offsets need 64 bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gradspike.engine.triton import surrogates, tiles


@triton.jit
def channel_statistics(
    y, partials, M, C, S, parts, per,
    PLANES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, DT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Count, mean and sum of squared deviations of each channel and program: partials [3, parts, C].

    Treats all steps of y as one.
    """
    part, c = tiles.position(C, BLOCK_C)
    n = tl.zeros((BLOCK_M, BLOCK_C), DT)
    mean = tl.zeros((BLOCK_M, BLOCK_C), DT)
    squares = tl.zeros((BLOCK_M, BLOCK_C), DT)
    for i in range(per):
        offsets, mask = tiles.offsets_of(i * parts + part, c, M, C, S, PLANES, BLOCK_M, WIDE)
        value = tl.load(y + offsets, mask=mask, other=0.0).to(DT)
        mean, squares = tiles.welford(value, mask, i, mean, squares, DT)
        n += mask.to(DT)
    tiles.store_pooled(
        partials + part * C + c[None, :], parts * C, (c < C)[None, :], *tiles.pool_axis(n, mean, squares, 0)
    )


@triton.jit
def pool(
    partials, means, squares, N, K,
    DIVIDE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, DT: tl.constexpr,
):  # fmt: skip
    """Mean and sum of squared deviations (with DIVIDE: variance) of unions of parts: partials [3, N, K] to [K] each.

    Chan, Golub and LeVeque, 1979, as in `engine.base.pooled_statistics`. The means are summed as differences from the
    first one, so the variance of equal values is exactly 0.
    """
    k = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = k < K
    reference = tl.load(partials + N * K + k, mask=inside, other=0.0)
    total = tl.zeros((BLOCK_K,), DT)
    offset = tl.zeros((BLOCK_K,), DT)
    for start in range(0, N, BLOCK_N):
        count, mean, _ = tiles.load_parts(partials, start, k, N, K, BLOCK_N)
        total += tl.sum(count, axis=0)
        offset += tl.sum(count * (mean - reference[None, :]), axis=0)
    total = tl.maximum(total, 1.0)
    pooled = reference + offset / total
    deviations = tl.zeros((BLOCK_K,), DT)
    for start in range(0, N, BLOCK_N):
        count, mean, within = tiles.load_parts(partials, start, k, N, K, BLOCK_N)
        difference = mean - pooled[None, :]
        deviations += tl.sum(within + count * difference * difference, axis=0)
    if DIVIDE:
        deviations = deviations / total
    tl.store(means + k, pooled, mask=inside)
    tl.store(squares + k, deviations, mask=inside)


@triton.jit
def fire_steps(
    y, spikes, gain, bias, mean, inverse, decay, thresholds, widths, partials, M, C, S, STEP, parts, per,
    T: tl.constexpr, STATIC: tl.constexpr, NORM: tl.constexpr, PLANES: tl.constexpr,
    CHANNEL_THRESHOLDS: tl.constexpr, CHANNEL_WIDTHS: tl.constexpr, SURROGATE: tl.constexpr, SMOOTH: tl.constexpr,
    MOMENTS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, DT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """All steps: reads y once and writes the spikes once.

    With MOMENTS, partials [3, programs, T] receive count, mean and sum of squared deviations of u per step and program.
    """
    part, c = tiles.position(C, BLOCK_C)
    center, scale, shift = tiles.load_affine(gain, bias, mean, inverse, c, C, NORM)
    tau = tl.load(decay)
    n = tl.zeros((BLOCK_M, BLOCK_C), DT)
    u_means = ()
    u_squares = ()
    for _ in tl.static_range(T if MOMENTS else 0):
        u_means = u_means + (tl.zeros((BLOCK_M, BLOCK_C), DT),)
        u_squares = u_squares + (tl.zeros((BLOCK_M, BLOCK_C), DT),)

    for i in range(per):
        offsets, mask = tiles.offsets_of(i * parts + part, c, M, C, S, PLANES, BLOCK_M, WIDE)
        n += mask.to(DT)
        u = tl.zeros((BLOCK_M, BLOCK_C), DT)
        s = tl.zeros((BLOCK_M, BLOCK_C), DT)
        x = tl.zeros((BLOCK_M, BLOCK_C), DT)
        new_means = ()
        new_squares = ()
        for t in tl.static_range(T):
            if t == 0 or not STATIC:
                value = tl.load(tiles.step_start(y, t, STEP) + offsets, mask=mask, other=0.0).to(DT)
                x = tiles.current(value, center, scale, shift, NORM)
            u = x if t == 0 else tiles.charge(x, u, s, tau)
            theta = tiles.load_step(thresholds, t, c, C, CHANNEL_THRESHOLDS)
            kappa = tiles.load_step(widths, t, c, C, CHANNEL_WIDTHS)
            s = tiles.fire(u, theta, kappa, SURROGATE, SMOOTH, DT)
            tl.store(tiles.step_start(spikes, t, STEP) + offsets, s.to(spikes.dtype.element_ty), mask=mask)
            if MOMENTS:
                new_mean, new_square = tiles.welford(u, mask, i, u_means[t], u_squares[t], DT)
                new_means = new_means + (new_mean,)
                new_squares = new_squares + (new_square,)
        if MOMENTS:
            u_means = new_means
            u_squares = new_squares

    for t in tl.static_range(T if MOMENTS else 0):
        tiles.store_moments(partials, n, u_means[t], u_squares[t], t, T)


@triton.jit
def advance_step(
    y, u, spikes, gain, bias, mean, inverse, decay, threshold, width, partials, M, C, S, parts, per,
    FIRST: tl.constexpr, NORM: tl.constexpr, PLANES: tl.constexpr,
    CHANNEL_THRESHOLDS: tl.constexpr, CHANNEL_WIDTHS: tl.constexpr, SURROGATE: tl.constexpr, SMOOTH: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, DT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One step whose threshold depends on the potential: fire the previous step, charge u in place, measure it.

    partials: as in `fire_steps`, for a single step.
    """
    part, c = tiles.position(C, BLOCK_C)
    center, scale, shift = tiles.load_affine(gain, bias, mean, inverse, c, C, NORM)
    n = tl.zeros((BLOCK_M, BLOCK_C), DT)
    u_mean = tl.zeros((BLOCK_M, BLOCK_C), DT)
    u_squares = tl.zeros((BLOCK_M, BLOCK_C), DT)
    for i in range(per):
        offsets, mask = tiles.offsets_of(i * parts + part, c, M, C, S, PLANES, BLOCK_M, WIDE)
        value = tl.load(y + offsets, mask=mask, other=0.0).to(DT)
        charged = tiles.current(value, center, scale, shift, NORM)
        if not FIRST:
            before = tl.load(u + offsets, mask=mask, other=0.0)
            theta = tiles.load_step(threshold, 0, c, C, CHANNEL_THRESHOLDS)
            kappa = tiles.load_step(width, 0, c, C, CHANNEL_WIDTHS)
            s = tiles.fire(before, theta, kappa, SURROGATE, SMOOTH, DT)
            tl.store(spikes + offsets, s.to(spikes.dtype.element_ty), mask=mask)
            charged = tiles.charge(charged, before, s, tl.load(decay))
        tl.store(u + offsets, charged, mask=mask)
        u_mean, u_squares = tiles.welford(charged, mask, i, u_mean, u_squares, DT)
        n += mask.to(DT)
    tiles.store_moments(partials, n, u_mean, u_squares, 0, 1)


@triton.jit
def finish_step(
    u, spikes, threshold, width, M, C, S, parts, per,
    PLANES: tl.constexpr, CHANNEL_THRESHOLDS: tl.constexpr, CHANNEL_WIDTHS: tl.constexpr,
    SURROGATE: tl.constexpr, SMOOTH: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, DT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Fire the last step of `advance_step`."""
    part, c = tiles.position(C, BLOCK_C)
    theta = tiles.load_step(threshold, 0, c, C, CHANNEL_THRESHOLDS)
    kappa = tiles.load_step(width, 0, c, C, CHANNEL_WIDTHS)
    for i in range(per):
        offsets, mask = tiles.offsets_of(i * parts + part, c, M, C, S, PLANES, BLOCK_M, WIDE)
        s = tiles.fire(tl.load(u + offsets, mask=mask, other=0.0), theta, kappa, SURROGATE, SMOOTH, DT)
        tl.store(spikes + offsets, s.to(spikes.dtype.element_ty), mask=mask)


@triton.jit
def backward_steps(
    grad_spikes, grad_u_mean, grad_u_variance, y, gain, bias, mean, inverse, decay, thresholds, widths, u_mean,
    sums, grad_y, partials, M, C, S, STEP, COUNT, parts, per,
    T: tl.constexpr, STATIC: tl.constexpr, NORM: tl.constexpr, PLANES: tl.constexpr,
    CHANNEL_THRESHOLDS: tl.constexpr, CHANNEL_WIDTHS: tl.constexpr, SURROGATE: tl.constexpr, SMOOTH: tl.constexpr,
    DETACH_RESET: tl.constexpr, GRAD_MEAN: tl.constexpr, GRAD_VARIANCE: tl.constexpr,
    WRITE: tl.constexpr, CORRECT: tl.constexpr,
    AFFINE_ROW: tl.constexpr, DECAY_ROW: tl.constexpr, THRESHOLDS_ROW: tl.constexpr, WIDTHS_ROW: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, DT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Recompute u over all steps, then dL/dx backwards: summed for the rows given, and written as dL/dy with WRITE.

    partials [rows, parts, C]: AFFINE_ROW and the next row hold sums of dL/dx and dL/dx (y - m), DECAY_ROW those of the
    decay's gradient; THRESHOLDS_ROW and WIDTHS_ROW are the first of one row per step. A row of -1 is not wanted.
    CORRECT: the norm used the statistics of this batch, with COUNT values per channel; `sums` has the first two rows,
    summed over the parts.
    """
    part, c = tiles.position(C, BLOCK_C)
    center, scale, shift = tiles.load_affine(gain, bias, mean, inverse, c, C, NORM)
    tau = tl.load(decay)
    offset = 0.0
    slope = 0.0
    if CORRECT:
        # dL/dy = g r (dL/dx - mean(dL/dx) - (y - m) r mean(dL/dx (y - m) r))
        r = tl.load(inverse + c, mask=c < C, other=0.0)[None, :]
        count = tl.cast(COUNT, DT)
        offset = scale * tl.load(sums + c, mask=c < C, other=0.0)[None, :] / count
        slope = scale * r * (tl.load(sums + C + c, mask=c < C, other=0.0)[None, :] * r) / count
    sum_x = tl.zeros((BLOCK_M, BLOCK_C), DT)
    sum_xy = tl.zeros((BLOCK_M, BLOCK_C), DT)
    sum_decay = tl.zeros((BLOCK_M, BLOCK_C), DT)
    sum_thresholds = ()  # the last step first
    sum_widths = ()
    for _ in tl.static_range(T if THRESHOLDS_ROW >= 0 else 0):
        sum_thresholds = sum_thresholds + (tl.zeros((BLOCK_M, BLOCK_C), DT),)
    for _ in tl.static_range(T if WIDTHS_ROW >= 0 else 0):
        sum_widths = sum_widths + (tl.zeros((BLOCK_M, BLOCK_C), DT),)

    for i in range(per):
        offsets, mask = tiles.offsets_of(i * parts + part, c, M, C, S, PLANES, BLOCK_M, WIDE)
        potentials = ()
        u = tl.zeros((BLOCK_M, BLOCK_C), DT)
        s = tl.zeros((BLOCK_M, BLOCK_C), DT)
        value = tl.zeros((BLOCK_M, BLOCK_C), DT)
        for t in tl.static_range(T):
            if t == 0 or not STATIC:
                value = tl.load(tiles.step_start(y, t, STEP) + offsets, mask=mask, other=0.0).to(DT)
            x = tiles.current(value, center, scale, shift, NORM)
            u = x if t == 0 else tiles.charge(x, u, s, tau)
            potentials = potentials + (u,)
            theta = tiles.load_step(thresholds, t, c, C, CHANNEL_THRESHOLDS)
            kappa = tiles.load_step(widths, t, c, C, CHANNEL_WIDTHS)
            s = tiles.fire(u, theta, kappa, SURROGATE, SMOOTH, DT)

        grad_u = tl.zeros((BLOCK_M, BLOCK_C), DT)
        grad_x = tl.zeros((BLOCK_M, BLOCK_C), DT)
        new_thresholds = ()
        new_widths = ()
        for back in tl.static_range(T):
            u = potentials[T - 1 - back]
            theta = tiles.load_step(thresholds, T - 1 - back, c, C, CHANNEL_THRESHOLDS)
            kappa = tiles.load_step(widths, T - 1 - back, c, C, CHANNEL_WIDTHS)
            # `recursion.spike_adjoint`
            adjoint = tl.load(tiles.step_start(grad_spikes, T - 1 - back, STEP) + offsets, mask=mask, other=0.0).to(DT)
            if back > 0 and not DETACH_RESET:
                adjoint = adjoint - tau * u * grad_u
            h = surrogates.derivative(u - theta, kappa, SURROGATE)
            if THRESHOLDS_ROW >= 0:
                new_thresholds = new_thresholds + (sum_thresholds[back] - adjoint * h,)
            if WIDTHS_ROW >= 0:
                # `Surrogate.width_derivative`
                new_widths = new_widths + (sum_widths[back] - adjoint * ((u - theta) / kappa) * h,)
            # `recursion.membrane_adjoint`
            if back == 0:
                grad_u = h * adjoint
            else:
                s = tiles.fire(u, theta, kappa, SURROGATE, SMOOTH, DT)
                grad_u = h * adjoint + tau * (1 - s) * grad_u
            if GRAD_MEAN:
                grad_u += tl.load(grad_u_mean + T - 1 - back) / tl.cast(STEP, DT)
            if GRAD_VARIANCE:
                factor = tl.load(grad_u_variance + T - 1 - back) * (2 / tl.cast(STEP, DT))
                grad_u += factor * (u - tl.load(u_mean + T - 1 - back))
            if GRAD_MEAN or GRAD_VARIANCE:
                grad_u = tl.where(mask, grad_u, 0.0)
            if DECAY_ROW >= 0 and back < T - 1:
                before = potentials[T - 2 - back]
                theta = tiles.load_step(thresholds, T - 2 - back, c, C, CHANNEL_THRESHOLDS)
                kappa = tiles.load_step(widths, T - 2 - back, c, C, CHANNEL_WIDTHS)
                sum_decay += grad_u * before * (1 - tiles.fire(before, theta, kappa, SURROGATE, SMOOTH, DT))

            grad_x = grad_x + grad_u if STATIC else grad_u
            if back == T - 1 or not STATIC:
                deviation = 0.0
                if AFFINE_ROW >= 0 or CORRECT:
                    # Loaded again, not kept: it is in the cache, and T of them would fill the registers.
                    place = tiles.step_start(y, 0 if STATIC else T - 1 - back, STEP) + offsets
                    deviation = tl.load(place, mask=mask, other=0.0).to(DT) - center
                if AFFINE_ROW >= 0:
                    sum_x += grad_x
                    sum_xy += grad_x * deviation
                if WRITE:
                    out = grad_x
                    if NORM:
                        out = scale * out
                    if CORRECT:
                        out = out - slope * deviation - offset
                    target = tiles.step_start(grad_y, 0 if STATIC else T - 1 - back, STEP) + offsets
                    tl.store(target, out.to(grad_y.dtype.element_ty), mask=mask)
        sum_thresholds = new_thresholds
        sum_widths = new_widths

    if AFFINE_ROW >= 0:
        tiles.store_sum(partials, AFFINE_ROW, sum_x, part, parts, c, C)
        tiles.store_sum(partials, AFFINE_ROW + 1, sum_xy, part, parts, c, C)
    if DECAY_ROW >= 0:
        tiles.store_sum(partials, DECAY_ROW, sum_decay, part, parts, c, C)
    for back in tl.static_range(T if THRESHOLDS_ROW >= 0 else 0):
        tiles.store_sum(partials, THRESHOLDS_ROW + T - 1 - back, sum_thresholds[back], part, parts, c, C)
    for back in tl.static_range(T if WIDTHS_ROW >= 0 else 0):
        tiles.store_sum(partials, WIDTHS_ROW + T - 1 - back, sum_widths[back], part, parts, c, C)
