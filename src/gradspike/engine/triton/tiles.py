"""Operations of kernels on one tile of values: its position, current, recursion and sums.

They repeat `gradspike.neurons.recursion` and `gradspike.engine.formulas`, because a kernel cannot call those; tests
compare them. Argument names are those of `kernels`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gradspike.engine.triton import surrogates

# Above any mean, and the difference of two such numbers does not overflow float32.
FAR = tl.constexpr(1e38)


@triton.jit
def position(C, BLOCK_C: tl.constexpr):
    """This program's position along M, and its channels [BLOCK_C]."""
    blocks = tl.cdiv(C, BLOCK_C)
    program = tl.program_id(0)
    return program // blocks, (program % blocks) * BLOCK_C + tl.arange(0, BLOCK_C)


@triton.jit
def offsets_of(block, c, M, C, S, PLANES: tl.constexpr, BLOCK_M: tl.constexpr, WIDE: tl.constexpr):
    """Offsets of a tile's values in a step, and a mask of those that exist."""
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
def step_start(pointer, t: tl.constexpr, STEP):
    """Pointer to step t. All steps together may exceed 2^31 elements when a single one does not."""
    return pointer + t * tl.cast(STEP, tl.int64)


@triton.jit
def load_step(pointer, t: tl.constexpr, c, C, PER_CHANNEL: tl.constexpr):
    """One step's threshold or width, from [T] or [T, C], shaped to broadcast against a tile."""
    if PER_CHANNEL:
        value = tl.load(pointer + t * C + c, mask=c < C, other=1.0)[None, :]
    else:
        value = tl.load(pointer + t)
    return value


@triton.jit
def load_affine(gain, bias, mean, inverse, c, C, NORM: tl.constexpr):
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
def current(value, center, scale, shift, NORM: tl.constexpr):
    """`formulas._normalised`."""
    return (value - center) * scale + shift if NORM else value


@triton.jit
def charge(x, u, s, tau):
    """`recursion.charge`."""
    return tau * u * (1 - s) + x


@triton.jit
def fire(u, theta, kappa, SURROGATE: tl.constexpr, SMOOTH: tl.constexpr, DT: tl.constexpr):
    """`recursion.fire`, as a number."""
    return surrogates.primitive(u - theta, kappa, SURROGATE) if SMOOTH else (u >= theta).to(DT)


@triton.jit
def welford(value, mask, i, mean, squares, DT: tl.constexpr):
    """Update the running mean and sum of squared deviations of each position with its i-th value.

    Welford, 1962: a sum of squares in float32 would lose a small standard deviation next to a large mean.
    """
    delta = tl.where(mask, value - mean, 0.0)
    mean = mean + delta * (1 / tl.cast(i + 1, DT))
    return mean, squares + delta * tl.where(mask, value - mean, 0.0)


@triton.jit
def pool_axis(n, mean, squares, AXIS: tl.constexpr):
    """Count, mean and sum of squared deviations over an axis, kept with length 1; see `kernels.pool`."""
    total = tl.sum(n, axis=AXIS, keep_dims=True)
    reference = tl.min(tl.where(n > 0, mean, FAR), axis=AXIS, keep_dims=True)
    offset = tl.sum(tl.where(n > 0, n * (mean - reference), 0.0), axis=AXIS, keep_dims=True)
    pooled = reference + offset / tl.maximum(total, 1.0)
    difference = tl.where(n > 0, mean - pooled, 0.0)
    return total, pooled, tl.sum(squares + n * difference * difference, axis=AXIS, keep_dims=True)


@triton.jit
def store_pooled(place, size, mask, total, mean, squares):
    """Store the three results of `pool_axis`, `size` apart."""
    tl.store(place, total, mask=mask)
    tl.store(place + size, mean, mask=mask)
    tl.store(place + 2 * size, squares, mask=mask)


@triton.jit
def store_moments(partials, n, mean, squares, t: tl.constexpr, T: tl.constexpr):
    """Store this program's count, mean and sum of squared deviations, pooled over the tile, in [3, programs, T]."""
    n, mean, squares = pool_axis(n, mean, squares, 0)
    n, mean, squares = pool_axis(n, mean, squares, 1)
    place = partials + tl.program_id(0) * T + t + tl.zeros((1, 1), tl.int32)
    store_pooled(place, tl.num_programs(0) * T, n > 0, n, mean, squares)


@triton.jit
def store_sum(partials, row: tl.constexpr, tile, part, parts, c, C):
    """Store a tile's sums over M as this part's, in [rows, parts, C]."""
    tl.store(partials + (row * parts + part) * C + c, tl.sum(tile, axis=0), mask=c < C)


@triton.jit
def load_parts(partials, start, k, N, K, BLOCK_N: tl.constexpr):
    """Counts, means and sums of squares of some parts, [BLOCK_N, BLOCK_K] each."""
    rows = start + tl.arange(0, BLOCK_N)
    offsets = rows[:, None] * K + k[None, :]
    mask = (rows < N)[:, None] & (k < K)[None, :]
    count = tl.load(partials + offsets, mask=mask, other=0.0)
    mean = tl.load(partials + N * K + offsets, mask=mask, other=0.0)
    squares = tl.load(partials + 2 * N * K + offsets, mask=mask, other=0.0)
    return count, mean, squares
