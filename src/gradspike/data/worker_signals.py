"""What processes of a DataLoader do at signals that are meant for the training."""

from __future__ import annotations

import os
import signal
import threading


def leave_signals_to_the_training(number: int) -> None:
    """For `DataLoader(worker_init_fn=...)`: ignore signals to all processes of the training, which still needs batches.

    A terminal sends SIGINT or SIGHUP to all of them, Slurm also SIGTERM, SIGUSR1 and SIGUSR2. By SIGTERM, the training
    itself ends a worker; so the system's record of the sender decides (where `sigwaitinfo` gives it: not on macOS).
    """
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):
        return
    parent = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def end_for_parent() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=end_for_parent, daemon=True).start()
