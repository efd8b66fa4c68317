"""Stands in for a training in `size.py`: writes the files of a finished run, copied from the folder that argv[1] names.

Run with `python -S -E`, without imports that take time. The other arguments are those of `gradspike train`.
"""

import os
import shutil
import sys

template, *words = sys.argv[1:]
values = dict(word.split("=", 1) for word in words)
run_id = f"{os.getpid():08x}{os.urandom(3).hex()}"
run = os.path.join(values["runs_dir"], f"run_{values['seed']}_{run_id}")
os.mkdir(run)


def write(name: str, text: str) -> None:
    """Write a file of the run."""
    with open(os.path.join(run, name), "w", encoding="utf-8") as file:
        file.write(text)


with open(os.path.join(template, "config.yaml"), encoding="utf-8") as file:
    config = file.read()
write("run.json", f'{{"id": "{run_id}"}}')
write("status.json", f'{{"state": "finished", "pid": {os.getpid()}, "host": "{os.uname().nodename}"}}')
config = config.replace("\nseed: 0\n", f"\nseed: {values['seed']}\n")
write("config.yaml", config.replace("\n  lr: 0.5\n", f"\n  lr: {values['optimizer.lr']}\n"))
for name in ("metrics.jsonl", "timing.jsonl", "environment.json", "summary.json"):
    shutil.copyfile(os.path.join(template, name), os.path.join(run, name))
