"""Norm and neuron of one layer over all its steps as Triton kernels; `triton_engine` launches them.

They repeat, for one tile of values, what `gradspike.neurons.lif` and `gradspike.engine.formulas` say for whole tensors,
since a kernel can call neither; tests hold them together.

A tile is [BLOCK_M, BLOCK_C]: values of one step by channels. `rows` [M, C] have their channels along the fast axis and
tiles as wide as that allows; `planes` [P, C, S] have M = P * S values a channel, and tiles of a single channel. Program
p has the channels of block p % blocks and of the tiles along M every `parts`-th one, so that neighbours in the grid are
neighbours in memory. What is summed over M leaves one partial sum a program; nothing is added in an order that could
differ from run to run, so results are the same bit for bit.

Arguments that all have in common:
    M, C, S: values of a channel in a step, channels, values of a plane (1 for rows).
    STEP: elements of one step, M * C.
    parts, per: programs along M, and tiles of each.
    DT: dtype of the recursion. WIDE: offsets need 64 bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gradspike.engine.triton import surrogates

# Above any mean, and no difference of two such numbers overflows float32.
FAR = tl.constexpr(1e38)


@triton.jit
def channel_statistics(
    y, partials, M, C, S, parts, per,
    PLANES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, DT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Count, mean and sum of squared deviations of each channel and program: partials [3, parts, C].

    All steps of y count as one.
    """
    part, c = _program(C, BLOCK_C)
    n = tl.zeros((BLOCK_M, BLOCK_C), DT)
    mean = tl.zeros((BLOCK_M, BLOCK_C), DT)
    squares = tl.zeros((BLOCK_M, BLOCK_C), DT)
    for i in range(per):
        offsets, mask = _tile(i * parts + part, c, M, C, S, PLANES, BLOCK_M, WIDE)
        value = tl.load(y + offsets, mask=mask, other=0.0).to(DT)
        mean, squares = _welford(value, mask, i, mean, squares, DT)
        n += mask.to(DT)
    _store_pooled(partials + part * C + c[None, :], parts * C, (c < C)[None, :], *_pooled(n, mean, squares, 0))


@triton.jit
def pool(
    partials, means, squares, N, K,
    DIVIDE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, DT: tl.constexpr,
):  # fmt: skip
    """Mean and sum of squared deviations (with DIVIDE: variance) of unions of parts: partials [3, N, K] to [K] each.

    Chan, Golub and LeVeque, 1979, as in `engine.base.pooled_statistics`. The means are added up as differences to the
    first of them, so that equal values have a variance of exactly 0.
    """
    k = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = k < K
    reference = tl.load(partials + N * K + k, mask=inside, other=0.0)
    total = tl.zeros((BLOCK_K,), DT)
    offset = tl.zeros((BLOCK_K,), DT)
    for start in range(0, N, BLOCK_N):
        count, mean, _ = _parts(partials, start, k, N, K, BLOCK_N)
        total += tl.sum(count, axis=0)
        offset += tl.sum(count * (mean - reference[None, :]), axis=0)
    total = tl.maximum(total, 1.0)
    pooled = reference + offset / total
    deviations = tl.zeros((BLOCK_K,), DT)
    for start in range(0, N, BLOCK_N):
        count, mean, within = _parts(partials, start, k, N, K, BLOCK_N)
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
    """All steps: y is read once, spikes are written once.

    MOMENTS: count, mean and sum of squared deviations of u of each step and program, partials [3, programs, T].
    """
    part, c = _program(C, BLOCK_C)
    center, scale, shift = _affine(gain, bias, mean, inverse, c, C, NORM)
    tau = tl.load(decay)
    n = tl.zeros((BLOCK_M, BLOCK_C), DT)
    u_means = ()
    u_squares = ()
    for _ in tl.static_range(T if MOMENTS else 0):
        u_means = u_means + (tl.zeros((BLOCK_M, BLOCK_C), DT),)
        u_squares = u_squares + (tl.zeros((BLOCK_M, BLOCK_C), DT),)

    for i in range(per):
        offsets, mask = _tile(i * parts + part, c, M, C, S, PLANES, BLOCK_M, WIDE)
        n += mask.to(DT)
        u = tl.zeros((BLOCK_M, BLOCK_C), DT)
        s = tl.zeros((BLOCK_M, BLOCK_C), DT)
        x = tl.zeros((BLOCK_M, BLOCK_C), DT)
        new_means = ()
        new_squares = ()
        for t in tl.static_range(T):
            if t == 0 or not STATIC:
                value = tl.load(_at(y, t, STEP) + offsets, mask=mask, other=0.0).to(DT)
                x = _current(value, center, scale, shift, NORM)
            u = x if t == 0 else _charge(x, u, s, tau)
            theta = _step_value(thresholds, t, c, C, CHANNEL_THRESHOLDS)
            kappa = _step_value(widths, t, c, C, CHANNEL_WIDTHS)
            s = _fire(u, theta, kappa, SURROGATE, SMOOTH, DT)
            tl.store(_at(spikes, t, STEP) + offsets, s.to(spikes.dtype.element_ty), mask=mask)
            if MOMENTS:
                new_mean, new_square = _welford(u, mask, i, u_means[t], u_squares[t], DT)
                new_means = new_means + (new_mean,)
                new_squares = new_squares + (new_square,)
        if MOMENTS:
            u_means = new_means
            u_squares = new_squares

    for t in tl.static_range(T if MOMENTS else 0):
        _store_moments(partials, n, u_means[t], u_squares[t], t, T)


@triton.jit
def advance_step(
    y, u, spikes, gain, bias, mean, inverse, decay, threshold, width, partials, M, C, S, parts, per,
    FIRST: tl.constexpr, NORM: tl.constexpr, PLANES: tl.constexpr,
    CHANNEL_THRESHOLDS: tl.constexpr, CHANNEL_WIDTHS: tl.constexpr, SURROGATE: tl.constexpr, SMOOTH: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, DT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One step, where its threshold depends on the potential: fire the step before, charge u in its place, measure it.

    partials: as in `fire_steps`, of a single step.
    """
    part, c = _program(C, BLOCK_C)
    center, scale, shift = _affine(gain, bias, mean, inverse, c, C, NORM)
    n = tl.zeros((BLOCK_M, BLOCK_C), DT)
    u_mean = tl.zeros((BLOCK_M, BLOCK_C), DT)
    u_squares = tl.zeros((BLOCK_M, BLOCK_C), DT)
    for i in range(per):
        offsets, mask = _tile(i * parts + part, c, M, C, S, PLANES, BLOCK_M, WIDE)
        value = tl.load(y + offsets, mask=mask, other=0.0).to(DT)
        charged = _current(value, center, scale, shift, NORM)
        if not FIRST:
            before = tl.load(u + offsets, mask=mask, other=0.0)
            theta = _step_value(threshold, 0, c, C, CHANNEL_THRESHOLDS)
            kappa = _step_value(width, 0, c, C, CHANNEL_WIDTHS)
            s = _fire(before, theta, kappa, SURROGATE, SMOOTH, DT)
            tl.store(spikes + offsets, s.to(spikes.dtype.element_ty), mask=mask)
            charged = _charge(charged, before, s, tl.load(decay))
        tl.store(u + offsets, charged, mask=mask)
        u_mean, u_squares = _welford(charged, mask, i, u_mean, u_squares, DT)
        n += mask.to(DT)
    _store_moments(partials, n, u_mean, u_squares, 0, 1)


@triton.jit
def finish_step(
    u, spikes, threshold, width, M, C, S, parts, per,
    PLANES: tl.constexpr, CHANNEL_THRESHOLDS: tl.constexpr, CHANNEL_WIDTHS: tl.constexpr,
    SURROGATE: tl.constexpr, SMOOTH: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, DT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The spikes of the last step of `advance_step`."""
    part, c = _program(C, BLOCK_C)
    theta = _step_value(threshold, 0, c, C, CHANNEL_THRESHOLDS)
    kappa = _step_value(width, 0, c, C, CHANNEL_WIDTHS)
    for i in range(per):
        offsets, mask = _tile(i * parts + part, c, M, C, S, PLANES, BLOCK_M, WIDE)
        s = _fire(tl.load(u + offsets, mask=mask, other=0.0), theta, kappa, SURROGATE, SMOOTH, DT)
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
    """u anew over all steps, then dL/dx backwards. Summed where a row is given, written as dL/dy where WRITE says so.

    partials [rows, parts, C]: at AFFINE_ROW the sums of dL/dx and dL/dx (y - m), at DECAY_ROW of the decay's gradient,
    from THRESHOLDS_ROW and WIDTHS_ROW on those of each step; a row of -1 is not wanted.
    CORRECT: `sums` has the first two rows, added up over the parts, and the norm's statistics are those of the COUNT
    values of each channel in y.
    """
    part, c = _program(C, BLOCK_C)
    center, scale, shift = _affine(gain, bias, mean, inverse, c, C, NORM)
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
        offsets, mask = _tile(i * parts + part, c, M, C, S, PLANES, BLOCK_M, WIDE)
        potentials = ()
        u = tl.zeros((BLOCK_M, BLOCK_C), DT)
        s = tl.zeros((BLOCK_M, BLOCK_C), DT)
        value = tl.zeros((BLOCK_M, BLOCK_C), DT)
        for t in tl.static_range(T):
            if t == 0 or not STATIC:
                value = tl.load(_at(y, t, STEP) + offsets, mask=mask, other=0.0).to(DT)
            x = _current(value, center, scale, shift, NORM)
            u = x if t == 0 else _charge(x, u, s, tau)
            potentials = potentials + (u,)
            theta = _step_value(thresholds, t, c, C, CHANNEL_THRESHOLDS)
            kappa = _step_value(widths, t, c, C, CHANNEL_WIDTHS)
            s = _fire(u, theta, kappa, SURROGATE, SMOOTH, DT)

        grad_u = tl.zeros((BLOCK_M, BLOCK_C), DT)
        grad_x = tl.zeros((BLOCK_M, BLOCK_C), DT)
        new_thresholds = ()
        new_widths = ()
        for back in tl.static_range(T):
            u = potentials[T - 1 - back]
            theta = _step_value(thresholds, T - 1 - back, c, C, CHANNEL_THRESHOLDS)
            kappa = _step_value(widths, T - 1 - back, c, C, CHANNEL_WIDTHS)
            # `neuron.spike_adjoint`
            adjoint = tl.load(_at(grad_spikes, T - 1 - back, STEP) + offsets, mask=mask, other=0.0).to(DT)
            if back > 0 and not DETACH_RESET:
                adjoint = adjoint - tau * u * grad_u
            h = surrogates.derivative(u - theta, kappa, SURROGATE)
            if THRESHOLDS_ROW >= 0:
                new_thresholds = new_thresholds + (sum_thresholds[back] - adjoint * h,)
            if WIDTHS_ROW >= 0:
                # `Surrogate.width_derivative`
                new_widths = new_widths + (sum_widths[back] - adjoint * ((u - theta) / kappa) * h,)
            # `neuron.membrane_adjoint`
            if back == 0:
                grad_u = h * adjoint
            else:
                s = _fire(u, theta, kappa, SURROGATE, SMOOTH, DT)
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
                theta = _step_value(thresholds, T - 2 - back, c, C, CHANNEL_THRESHOLDS)
                kappa = _step_value(widths, T - 2 - back, c, C, CHANNEL_WIDTHS)
                sum_decay += grad_u * before * (1 - _fire(before, theta, kappa, SURROGATE, SMOOTH, DT))

            grad_x = grad_x + grad_u if STATIC else grad_u
            if back == T - 1 or not STATIC:
                deviation = 0.0
                if AFFINE_ROW >= 0 or CORRECT:
                    # Loaded once more rather than kept: it is in the cache, and T of them would fill the registers.
                    place = _at(y, 0 if STATIC else T - 1 - back, STEP) + offsets
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
                    target = _at(grad_y, 0 if STATIC else T - 1 - back, STEP) + offsets
                    tl.store(target, out.to(grad_y.dtype.element_ty), mask=mask)
        sum_thresholds = new_thresholds
        sum_widths = new_widths

    if AFFINE_ROW >= 0:
        _store_sum(partials, AFFINE_ROW, sum_x, part, parts, c, C)
        _store_sum(partials, AFFINE_ROW + 1, sum_xy, part, parts, c, C)
    if DECAY_ROW >= 0:
        _store_sum(partials, DECAY_ROW, sum_decay, part, parts, c, C)
    for back in tl.static_range(T if THRESHOLDS_ROW >= 0 else 0):
        _store_sum(partials, THRESHOLDS_ROW + T - 1 - back, sum_thresholds[back], part, parts, c, C)
    for back in tl.static_range(T if WIDTHS_ROW >= 0 else 0):
        _store_sum(partials, WIDTHS_ROW + T - 1 - back, sum_widths[back], part, parts, c, C)


@triton.jit
def _program(C, BLOCK_C: tl.constexpr):
    """This program's place along M, and its channels [BLOCK_C]."""
    blocks = tl.cdiv(C, BLOCK_C)
    program = tl.program_id(0)
    return program // blocks, (program % blocks) * BLOCK_C + tl.arange(0, BLOCK_C)


@triton.jit
def _tile(block, c, M, C, S, PLANES: tl.constexpr, BLOCK_M: tl.constexpr, WIDE: tl.constexpr):
    """Offsets of a tile's values within a step, and which of them exist."""
    if WIDE:
        block = tl.cast(block, tl.int64)
        c = c.to(tl.int64)
    m = block * BLOCK_M + tl.arange(0, BLOCK_M)
    if PLANES:
        offsets = ((m // S) * C * S + m % S)[:, None] + (c * S)[None, :]
    else:
        offsets = (m * C)[:, None] + c[None, :]
    return offsets, (m < M)[:, None] & (c < C)[None, :]


@triton.jit
def _at(pointer, t: tl.constexpr, STEP):
    """Where step t begins. All steps together may have more than 2^31 elements where one has not."""
    return pointer + t * tl.cast(STEP, tl.int64)


@triton.jit
def _step_value(pointer, t: tl.constexpr, c, C, PER_CHANNEL: tl.constexpr):
    """One step's threshold or width, which broadcasts against a tile: from [T] or [T, C]."""
    if PER_CHANNEL:
        value = tl.load(pointer + t * C + c, mask=c < C, other=1.0)[None, :]
    else:
        value = tl.load(pointer + t)
    return value


@triton.jit
def _affine(gain, bias, mean, inverse, c, C, NORM: tl.constexpr):
    """Mean m, gain g r and bias b, [1, BLOCK_C]: the current is (y - m) g r + b."""
    center = 0.0
    scale = 1.0
    shift = 0.0
    if NORM:
        inside = c < C
        center = tl.load(mean + c, mask=inside, other=0.0)[None, :]
        g = tl.load(gain + c, mask=inside, other=0.0)
        scale = (g * tl.load(inverse + c, mask=inside, other=0.0))[None, :]
        shift = tl.load(bias + c, mask=inside, other=0.0)[None, :]
    return center, scale, shift


@triton.jit
def _current(value, center, scale, shift, NORM: tl.constexpr):
    """`formulas._current`."""
    return (value - center) * scale + shift if NORM else value


@triton.jit
def _charge(x, u, s, tau):
    """`neuron.charge`."""
    return tau * u * (1 - s) + x


@triton.jit
def _fire(u, theta, kappa, SURROGATE: tl.constexpr, SMOOTH: tl.constexpr, DT: tl.constexpr):
    """`neuron.fire`, as a number."""
    return surrogates.primitive(u - theta, kappa, SURROGATE) if SMOOTH else (u >= theta).to(DT)


@triton.jit
def _welford(value, mask, i, mean, squares, DT: tl.constexpr):
    """Each place of a tile follows the mean and the squared deviations of what it has seen; this is its i-th value.

    Welford, 1962: no sum of squares, which in float32 loses a small spread beside a large mean.
    """
    delta = tl.where(mask, value - mean, 0.0)
    mean = mean + delta * (1 / tl.cast(i + 1, DT))
    return mean, squares + delta * tl.where(mask, value - mean, 0.0)


@triton.jit
def _pooled(n, mean, squares, AXIS: tl.constexpr):
    """Count, mean and sum of squared deviations over an axis, which stays as one of length 1; see `pool`."""
    total = tl.sum(n, axis=AXIS, keep_dims=True)
    reference = tl.min(tl.where(n > 0, mean, FAR), axis=AXIS, keep_dims=True)
    offset = tl.sum(tl.where(n > 0, n * (mean - reference), 0.0), axis=AXIS, keep_dims=True)
    pooled = reference + offset / tl.maximum(total, 1.0)
    difference = tl.where(n > 0, mean - pooled, 0.0)
    return total, pooled, tl.sum(squares + n * difference * difference, axis=AXIS, keep_dims=True)


@triton.jit
def _store_pooled(place, size, mask, total, mean, squares):
    """The three of `_pooled`, `size` apart."""
    tl.store(place, total, mask=mask)
    tl.store(place + size, mean, mask=mask)
    tl.store(place + 2 * size, squares, mask=mask)


@triton.jit
def _store_moments(partials, n, mean, squares, t: tl.constexpr, T: tl.constexpr):
    """Count, mean and sum of squared deviations of a whole tile as this program's, in [3, programs, T]."""
    n, mean, squares = _pooled(n, mean, squares, 0)
    n, mean, squares = _pooled(n, mean, squares, 1)
    place = partials + tl.program_id(0) * T + t + tl.zeros((1, 1), tl.int32)
    _store_pooled(place, tl.num_programs(0) * T, n > 0, n, mean, squares)


@triton.jit
def _store_sum(partials, row: tl.constexpr, tile, part, parts, c, C):
    """A tile's sums over M as this part's, in [rows, parts, C]."""
    tl.store(partials + (row * parts + part) * C + c, tl.sum(tile, axis=0), mask=c < C)


@triton.jit
def _parts(partials, start, k, N, K, BLOCK_N: tl.constexpr):
    """Counts, means and squares of some parts, [BLOCK_N, BLOCK_K] each."""
    rows = start + tl.arange(0, BLOCK_N)
    offsets = rows[:, None] * K + k[None, :]
    mask = (rows < N)[:, None] & (k < K)[None, :]
    count = tl.load(partials + offsets, mask=mask, other=0.0)
    mean = tl.load(partials + N * K + offsets, mask=mask, other=0.0)
    squares = tl.load(partials + 2 * N * K + offsets, mask=mask, other=0.0)
    return count, mean, squares
