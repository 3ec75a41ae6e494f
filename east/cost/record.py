"""A row of Table 6: what `east cost` finds out about a method, and what tables and figures read."""

from pydantic import BaseModel, ConfigDict, Field


class CostRecord(BaseModel):
    """What one method costs. Sizes are in MB of 2^20 bytes, FLOPs are of one image; what was not measured is None."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    method: str = Field(description="its name")
    param_size_mb: float = Field(ge=0, description="'Param Size' in the paper's accounting")
    est_total_mb: float = Field(ge=0, description="'Est. Total' in the paper's accounting")
    param_size_mb_active: float | None = Field(
        default=None, description="'Param Size' with DyReLU active, where the row has it off"
    )
    est_total_mb_active: float | None = Field(
        default=None, description="'Est. Total' with DyReLU active, where the row has it off"
    )
    trainable_parameters: int | None = Field(
        default=None, ge=0, description="trainable numbers at the start of training, off weights included"
    )
    nonzeros: int | None = Field(default=None, ge=0, description="active weights at the target density")
    batch_norm_parameters: int | None = Field(default=None, ge=0, description="scales and shifts of batch norm")
    dyrelu_parameters: int | None = Field(
        default=None, ge=0, description="parameters of DyReLU, which leave the network when it has faded"
    )
    other_parameters: int | None = Field(default=None, ge=0, description="sharing scales, DCT factors and biases")
    flops_inference_dense: float | None = Field(
        default=None, description="one image through the trained network, all weights executed"
    )
    flops_inference_sparse: float | None = Field(default=None, description="the same, active weights only")
    flops_training_dense: float | None = Field(
        default=None, description="one image in a training step, all weights executed and DyReLU active"
    )
    flops_training_sparse: float | None = Field(
        default=None,
        description="mean over the training: the density schedule, active weights only, dense gradients where growth "
        "needs them, DyReLU until it has faded",
    )
    peak_memory_mb: float | None = Field(default=None, description="of the measured steps")
    seconds_per_step: float | None = Field(default=None, description="measured, with DyReLU active")
    seconds_spread: float | None = Field(
        default=None, description="difference between the quartiles of the measured steps"
    )
    hours_estimate: float | None = Field(
        default=None,
        description="of the whole training: measured seconds, in proportion to the recipe's batch size and times its "
        "steps, with and without DyReLU in their shares; without evaluation",
    )
    measured_batch_size: int | None = Field(
        default=None, description="images of a measured step, which may be fewer than the recipe's"
    )
    measured_on: str | None = Field(default=None, description="the machine")
