"""The format of RunPod Hub's two files, as its publishing guide documents it; unknown keys are faults.

https://docs.runpod.io/hub/publishing-guide
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator


Text = Annotated[str, StringConstraints(min_length=1)]
CudaVersion = Annotated[str, StringConstraints(pattern=r"^\d+\.\d+$")]
POOLS = (
    "AMPERE_16",
    "AMPERE_24",
    "ADA_24",
    "AMPERE_48",
    "ADA_48_PRO",
    "AMPERE_80",
    "ADA_80_PRO",
    "HOPPER_141",
)
POOL = rf"({'|'.join(POOLS)}|-[A-Z][\w .-]+)"


class Part(BaseModel):
    """An object of a file: only known keys, and no value turned into another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Option(Part):
    """A choice of an input."""

    label: Text
    value: str


class Input(Part):
    """What a deployer is asked."""

    name: Text
    type: Literal["string", "number", "boolean", "huggingface"]
    description: Text
    default: str | float | bool | None = None
    required: bool = False
    advanced: bool = False
    options: list[Option] | None = None
    min: float | None = None
    max: float | None = None
    trueValue: str | None = None  # noqa: N815  the file's name
    falseValue: str | None = None  # noqa: N815

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        kind = {"number": (int, float), "boolean": bool}.get(self.type, str)
        if self.default is not None and not self.takes(self.default):
            raise ValueError(f"{self.name}: the default {self.default!r} is not one of its values")
        if kind is str and (self.min is not None or self.max is not None):
            raise ValueError(f"{self.name}: only numbers have bounds")
        if (self.type == "boolean") != (self.trueValue is not None and self.falseValue is not None):
            raise ValueError(f"{self.name}: a boolean says what true and false are, and nothing else does")
        return self

    def takes(self, value: Any) -> bool:
        """Return whether *value* is one that a deployer could give."""
        if self.type == "boolean":
            return isinstance(value, bool)
        if self.type == "number":
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            low, high = self.min, self.max
            return is_number and (low is None or value >= low) and (high is None or value <= high)
        return isinstance(value, str) and (
            self.options is None or value in [option.value for option in self.options]
        )

    def written(self, value: Any) -> str:
        """Return what the worker finds in its environment for *value*."""
        if self.type == "boolean":
            return str(self.trueValue if value else self.falseValue)
        return str(value)


class Variable(Part):
    """An environment variable: a value, or a question."""

    key: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")]
    value: str | None = None
    input: Input | None = None

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if (self.value is None) == (self.input is None):
            raise ValueError(f"{self.key}: either a value or an input")
        return self


class Preset(Part):
    """A choice of defaults."""

    name: Text
    defaults: dict[str, str | float | bool]


class HubConfig(Part):
    """Where and how a deployment runs."""

    runsOn: Literal["GPU", "CPU"]  # noqa: N815
    endpointType: Literal["LB"] | None = None  # noqa: N815
    containerDiskInGb: Annotated[int, Field(ge=1)]  # noqa: N815
    gpuCount: Annotated[int, Field(ge=1)] | None = None  # noqa: N815
    gpuIds: Annotated[str, StringConstraints(pattern=rf"^{POOL}(,{POOL})*$")] | None = None  # noqa: N815
    cpuFlavor: Text | None = None  # noqa: N815
    allowedCudaVersions: Annotated[list[CudaVersion], Field(min_length=1)] | None = None  # noqa: N815
    presets: list[Preset] = []
    env: list[Variable] = []

    @model_validator(mode="after")
    def _names_its_machine(self) -> Self:
        is_gpu = self.runsOn == "GPU"
        if is_gpu != (self.gpuIds is not None and self.gpuCount is not None):
            raise ValueError("gpuIds and gpuCount belong to GPU")
        if is_gpu == (self.cpuFlavor is not None):
            raise ValueError("cpuFlavor belongs to CPU")
        keys = [variable.key for variable in self.env]
        if len(keys) != len(set(keys)):
            raise ValueError("a variable is there twice")
        return self


class Hub(Part):
    """hub.json."""

    title: Text
    description: Text
    type: Literal["serverless"]
    category: Literal["audio", "embedding", "language", "video", "image"]
    iconUrl: Annotated[str, StringConstraints(pattern=r"^https://")] | None = None  # noqa: N815
    config: HubConfig


class Test(Part):
    """One job to be sent: *input* is the raw job input, *timeout* in milliseconds."""

    __test__ = False

    name: Annotated[str, StringConstraints(pattern=r"^\w+$")]
    input: dict[str, Any]
    timeout: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _is_not_wrapped(self) -> Self:
        if "input" in self.input:
            raise ValueError(f"{self.name}: the input is given as it is, without another input around it")
        return self


class Setting(Part):
    """A variable of the test's worker."""

    key: Text
    value: str


class TestsConfig(Part):
    """Where the tests run."""

    __test__ = False

    gpuTypeId: Text | None = None  # noqa: N815
    gpuCount: Annotated[int, Field(ge=1)] | None = None  # noqa: N815
    cpuFlavor: Text | None = None  # noqa: N815
    env: list[Setting] = []
    allowedCudaVersions: list[CudaVersion] | None = None  # noqa: N815

    @model_validator(mode="after")
    def _names_its_machine(self) -> Self:
        if (self.gpuTypeId is None) == (self.cpuFlavor is None):
            raise ValueError("either gpuTypeId or cpuFlavor")
        if (self.gpuTypeId is None) != (self.gpuCount is None):
            raise ValueError("gpuTypeId and gpuCount belong together")
        return self


class Tests(Part):
    """tests.json."""

    __test__ = False

    tests: Annotated[list[Test], Field(min_length=1)]
    config: TestsConfig
