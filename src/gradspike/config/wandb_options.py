"""Options of the W&B logger, and checks of the names that W&B accepts.

A typed key wins over W&B's environment variable, and the variable over gradspike's default. A run records its options,
so a resumed run continues the same W&B run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from gradspike.errors import did_you_mean
from gradspike.registry import Strict
from gradspike.touches import Touches
from gradspike.variables import variable

LONGEST = 128
LONGEST_TAG = LONGEST_JOB_TYPE = 64
MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")
ENVIRONMENT = "environment"
"""The type of an error whose message names an environment variable instead of a key."""
RECORDED = "recorded"
"""Key of pydantic's context: whether the options are those of a run, for which no environment variable counts."""


def check_length(text: str) -> str:
    """Raise ValueError for a name that is empty or too long for W&B."""
    if not text.strip():
        raise ValueError("must not be empty")
    if len(text) > LONGEST:
        raise ValueError(f"must have at most {LONGEST} characters, which is W&B's limit; it has {len(text)}")
    return text


def check_name(text: str, entity: str = "logger.entity", project: str = "logger.project") -> str:
    """Raise ValueError for a name that W&B accepts for no project, user or team. entity, project: names of the keys."""
    if not text.isprintable():
        raise ValueError("must not contain control characters or line breaks")
    found = re.search(r"[/\\#?%:]", text)
    team, _, rest = text.partition("/")
    if found and team and rest and not re.search(r"[/\\#?%:]", team + rest):
        raise ValueError(f"must not contain /; write the team as {entity}={team} {project}={rest}")
    if found:
        raise ValueError(f"must not contain {found[0]}, which W&B does not allow (nor any of / \\ # ? % :)")
    return check_length(text)


def check_tag(text: str) -> str:
    """Raise ValueError for a tag that W&B does not accept."""
    if not 1 <= len(text) <= LONGEST_TAG:
        raise ValueError(f"a tag must have 1 to {LONGEST_TAG} characters, but '{text[:40]}' has {len(text)}")
    return text


def from_environment(name: str, check: Callable[[str], str]) -> str | None:
    """The checked value of a variable. Raises a pydantic error of the type ENVIRONMENT."""
    value = variable(name)
    try:
        return None if value is None else check(value)
    except ValueError as error:
        shown = str(value) if len(str(value)) <= 60 else f"{str(value)[:57]}..."
        text = f"the environment variable {name}={shown}: {error}"
        raise PydanticCustomError(ENVIRONMENT, "{text}", {"text": text}) from error


def _is_recorded(info: ValidationInfo) -> bool:
    return bool((info.context or {}).get(RECORDED))


def _unless_typed(value: Callable[[], str | None], default: str | None = None) -> BeforeValidator:
    def chosen(typed: Any, info: ValidationInfo) -> Any:
        if typed is not None:
            return typed
        return (None if _is_recorded(info) else value()) or default

    return BeforeValidator(chosen)


def project_variable() -> str | None:
    """WANDB_PROJECT, checked."""
    return from_environment("WANDB_PROJECT", _check_name_in_environment)


def entity_variable() -> str | None:
    """WANDB_ENTITY, checked."""
    return from_environment("WANDB_ENTITY", _check_name_in_environment)


def _check_name_in_environment(text: str) -> str:
    return check_name(text, "WANDB_ENTITY", "WANDB_PROJECT")


def _tags(typed: Any, info: ValidationInfo) -> Any:
    if typed or _is_recorded(info):
        return typed
    tags = from_environment("WANDB_TAGS", lambda text: ",".join(check_tag(tag) for tag in split_tags(text)))
    return tuple(split_tags(tags or ""))


def split_tags(text: str) -> list[str]:
    """The tags in WANDB_TAGS, without empty ones."""
    return [tag.strip() for tag in text.split(",") if tag.strip()]


def _check_mode(text: str) -> str:
    if text not in MODES:
        raise ValueError(f"must be one of {', '.join(MODES)}.{did_you_mean(text, MODES)}")
    return text


def _check_job_type(text: str) -> str:
    if len(text) > LONGEST_JOB_TYPE:
        raise ValueError(f"must have at most {LONGEST_JOB_TYPE} characters, which is W&B's limit; it has {len(text)}")
    return text


def _check_id(text: str) -> str:
    if found := re.search(r"[:;,#?/']", text):
        raise ValueError(f"must not contain {found[0]}, which W&B does not allow")
    return check_length(text)


def _check_seconds(text: str) -> str:
    if not re.fullmatch(r"\d+(\.\d*)?", text):
        raise ValueError("must be a number of seconds")
    return text


UNTYPED: dict[str, Callable[[str], str]] = {
    "WANDB_MODE": _check_mode,
    "WANDB_NAME": check_length,
    "WANDB_JOB_TYPE": _check_job_type,
    "WANDB_RUN_ID": _check_id,
    "WANDB_INIT_TIMEOUT": _check_seconds,
    "WANDB_FINISH_TIMEOUT": _check_seconds,
}
"""Variables without a configuration key, which the logger reads when it starts."""


def chosen_folder() -> str | None:
    """The user's folder for W&B's files in place of the run folder. Under W&B's agent None, since it sets WANDB_DIR."""
    return variable("WANDB_DIR") if variable("WANDB_SWEEP_ID") is None else None


class WandbConfig(Strict):
    """Weights & Biases."""

    touches: ClassVar[Touches] = Touches.SHOWN

    name: Literal["wandb"]
    project: Annotated[
        str,
        AfterValidator(check_name),
        _unless_typed(project_variable, default="gradspike"),
        Field(validate_default=True),
    ] = None  # type: ignore[assignment]
    """Null: WANDB_PROJECT, else gradspike."""
    entity: Annotated[
        Annotated[str, AfterValidator(check_name)] | None,
        _unless_typed(entity_variable),
        Field(validate_default=True),
    ] = None
    """User or team; null: WANDB_ENTITY, else the default of the login."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """auto: WANDB_MODE, else online when logged in, else offline."""
    group: Annotated[
        Annotated[str, AfterValidator(check_length)] | None,
        _unless_typed(lambda: from_environment("WANDB_RUN_GROUP", check_length)),
        Field(validate_default=True),
    ] = None
    """Null: WANDB_RUN_GROUP, else the method."""
    tags: Annotated[
        tuple[Annotated[str, AfterValidator(check_tag)], ...],
        BeforeValidator(_tags),
        Field(validate_default=True),
    ] = ()
    """Empty: WANDB_TAGS, separated by commas."""

    @model_validator(mode="after")
    def _rest_of_the_environment(self, info: ValidationInfo) -> WandbConfig:
        for name, check in UNTYPED.items() if not _is_recorded(info) else ():
            from_environment(name, check)
        return self
