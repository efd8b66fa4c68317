"""Checks the data of a run before torch is imported, which takes seconds."""

from __future__ import annotations

from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import validate
from gradspike.data.presence import check_files
from gradspike.shown import expanded


def check_data_of_run(config: ExperimentConfig, data_dir: str | None, source: str | None) -> None:
    """Raise UserError if the data set's files are missing and no set prepared from them is there.

    data_dir, source: where the data or their files are now, if they have moved. Raises ConfigError for a source of a
    data set that has no `dataset.source`. Does nothing for one's own data set.
    """
    if source is not None:
        plain = config.plain()
        plain["dataset"]["source"] = source
        config = validate(plain, recorded=True)
    check_files(config.dataset, config.time_steps, expanded(data_dir or config.data_dir))
