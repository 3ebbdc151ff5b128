"""What all sections share: strictness, and the types of single fields."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Dtype = Literal["float32", "bfloat16"]
PromptStyle = Literal["plain", "p2o", "qwen25-math"]
"""What stands around a question; :data:`p2o_core.prompts.STYLES` has the texts."""

ReflectionPrompt = Literal["plain", "terse"]
"""How a reflection is asked for; :data:`p2o_core.search.reflection.REFLECTION_PROMPTS` has the texts."""


def _without_credentials(url: str) -> str:
    """Parameters go to params.yaml, DVC, MLflow and logs; secrets go to the environment."""
    parts = urlsplit(url)
    if parts.username or parts.password or SECRET_QUERY.search(parts.query):
        raise ValueError(
            "a key or password in an URL would be logged; give it in the environment (key_env, api_key_env)"
        )
    return url


SECRET_QUERY = re.compile(r"(?:^|&)[^=&]*(?:key|token|secret|password|signature)[^=&]*=", re.IGNORECASE)
Url = Annotated[str, AfterValidator(_without_credentials)]


class Section(BaseModel):
    """Frozen, and strict about unknown keys: a misspelt parameter is an error, never a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def variant_of(default: str) -> BeforeValidator:
    """For a union of sections: the variant ``default`` where ``type`` is left out."""

    def named(value: Any) -> Any:
        return {"type": default, **value} if isinstance(value, dict) else value

    return BeforeValidator(named)
