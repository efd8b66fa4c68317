"""Let Hydra read and merge the files of each choice of groups once in a test process.

It parses 13 files and merges them for every composition, which is three quarters of its time, though only the choice of
groups decides the result. Values are parsed, checked and applied each time.
"""

from __future__ import annotations

import copy
from typing import Any

from hydra._internal import config_loader_impl
from hydra._internal.defaults_list import DefaultsList, Overrides
from omegaconf import DictConfig

from gradspike.config.compose import CONF_DIR

chosen_by_hydra = config_loader_impl.create_defaults_list
_Loader = config_loader_impl.ConfigLoaderImpl
_merged_by_hydra = _Loader._compose_config_from_defaults_list

_chosen: dict[Any, DefaultsList] = {}
_merged: dict[int, DictConfig | None] = {}
"""By the id of a list of files in `_chosen`; None until it is wanted."""


def merge_files_once() -> None:
    """From now on. Folders other than `conf` may change, so their files are read each time."""
    config_loader_impl.create_defaults_list = _choose  # type: ignore[assignment]
    _Loader._compose_config_from_defaults_list = _merge  # type: ignore[method-assign]


def _choose(repo: Any, config_name: str | None, overrides_list: list[Any], **options: Any) -> DefaultsList:
    """The files of the groups in `overrides_list`. Errors are raised each time."""
    folders = [source.path for source in repo.get_sources() if source.scheme() == "file"]
    if folders != [str(CONF_DIR)]:
        return chosen_by_hydra(repo=repo, config_name=config_name, overrides_list=overrides_list, **options)
    asked = Overrides(repo=repo, overrides_list=overrides_list)
    groups = (asked.override_choices, asked.override_metadata, asked.append_group_defaults, asked.deletions)
    key = (config_name, repr(groups), repr(options))
    if key not in _chosen:
        found = chosen_by_hydra(repo=repo, config_name=config_name, overrides_list=overrides_list, **options)
        _chosen[key] = found
        _merged[id(found.defaults)] = None
    known = _chosen[key]
    overrides = copy.copy(known.overrides)
    overrides.config_overrides = asked.config_overrides
    return DefaultsList(known.defaults, known.defaults_tree, asked.config_overrides, overrides)


def _merge(self: Any, defaults: list[Any], repo: Any) -> DictConfig:
    """The files merged, as a copy that the caller may change."""
    if id(defaults) not in _merged:
        return _merged_by_hydra(self, defaults, repo)
    whole = _merged[id(defaults)]
    if whole is None:
        whole = _merged[id(defaults)] = _merged_by_hydra(self, defaults, repo)
    return copy.deepcopy(whole)
