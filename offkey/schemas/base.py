"""What all answers share."""

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """An answer. No number in it is NaN or infinite."""

    # Clients made from the OpenAPI document must live with fields that a later version adds.
    model_config = ConfigDict(allow_inf_nan=False, from_attributes=True)
