"""Define the base class of all answers."""

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """An answer of the service. No number in it is NaN or infinite."""

    # Not `extra="forbid"`: clients generated from the OpenAPI document must accept fields of a later version.
    model_config = ConfigDict(allow_inf_nan=False, from_attributes=True)
