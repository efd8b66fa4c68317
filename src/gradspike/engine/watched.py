"""Whether something watches every operation of torch."""

from __future__ import annotations

from gradspike.private_names import found


def is_watched() -> bool:
    """Whether a dispatch mode, such as a FLOP counter, sees every operation. Nothing compiles then."""
    return _modes() > 0


def _modes_in_python() -> int:
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    return len(_get_current_dispatch_mode_stack())


_modes = found("torch._C._len_torch_dispatch_stack", _modes_in_python)
"""The number of active dispatch modes."""
