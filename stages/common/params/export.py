"""`params.yaml`, section `export`: the forms of the model that serve faster."""

from typing import Self

from pydantic import Field, model_validator

from stages.common.params.augment import Share
from stages.common.params.base import Section


class ExportParams(Section):
    """ONNX, and ONNX with weights of 8 bits."""

    onnx: bool = Field(True, description="Write the model as ONNX, for onnxruntime.")
    int8: bool = Field(True, description="Quantize the ONNX model to 8 bits, dynamically.")
    allowed_drop: Share = Field(
        0.003, description="int8 is offered if its accuracy on the test rows falls by no more than this."
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.int8 and not self.onnx:
            raise ValueError("int8 is made of the ONNX model: set onnx: true, or int8: false")
        return self
