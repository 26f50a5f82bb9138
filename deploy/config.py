"""What one environment asks for: a TOML file as one frozen object.

`read` reports all faults together, each with its key, what was given and its limit, and a mistyped key with
the one that was probably meant. Bounds are those of RunPod's OpenAPI document v2 (schemas EndpointWorkers,
QueueDelayScaling, CreateNetworkVolumeRequest) and of its documentation of execution timeouts. What the keys
demand of each other is in `rules`. Secrets stand here by name only.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from deploy.errors import ConfigError, DeployError
from deploy.rules import faults_between


if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENTS: Final = Path(__file__).parent / "environments"
IMAGE_CUDA_VERSION: Final = "13.0"  # what the torch of requirements.txt is built for

MIN_TIMEOUT_S: Final = 600
MAX_TIMEOUT_S: Final = 86_400
DEFAULT_IDLE_TIMEOUT_S: Final = 10
SHA256: Final = re.compile(r"@(sha256:[0-9a-f]{64})$")


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(int(value))
    return str(value) if isinstance(value, int | float) else value


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=191)]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
Value = Annotated[str, BeforeValidator(_as_text)]
CudaVersion = Annotated[str, StringConstraints(pattern=r"^$|^\d+\.\d+$")]
Port = Annotated[int, Field(ge=1, le=65_535)]


class Part(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Gpu(Part):
    """Which GPUs a worker may run on."""

    pools: tuple[Text, ...] = Field(min_length=1)
    count: int = Field(default=1, ge=1)
    excluded_types: tuple[Text, ...] = ()
    min_cuda_version: CudaVersion = IMAGE_CUDA_VERSION  # empty: any


class Cpu(Part):
    """Which CPU a worker runs on, instead of a GPU."""

    flavor: Text
    vcpus: Annotated[int, Field(ge=2)]


class Workers(Part):
    """How many workers there may be."""

    min: int = Field(default=0, ge=0)
    max: int = Field(default=3, ge=0)
    idle_timeout_s: int | None = Field(default=None, ge=1, le=3600)


class Scaling(Part):
    """When another worker is started: exactly one of the two."""

    queue_delay_s: float | None = Field(default=None, ge=0.5)
    request_count: int | None = Field(default=None, ge=1)


class Volume(Part):
    """A network volume, found by its name and data center or created there."""

    name: Text
    data_center: Text
    size_gb: int = Field(ge=10, le=4096)
    type: Literal["STANDARD", "HIGH_PERFORMANCE"] | None = None
    id: Text | None = None


class Registry(Part):
    """Credentials of a private registry, found by their name or created from two variables."""

    name: Text
    username_env: Variable | None = None
    password_env: Variable | None = None


class Http(Part):
    """Where a load-balancing worker listens."""

    port: Port = 8000
    health_port: Port | None = None
    health_path: Annotated[str, StringConstraints(pattern=r"^/")] = "/ping"


class Config(Part):
    """One environment. Keys that may be left out have the defaults that example.toml names."""

    name: Text
    image: Text
    type: Literal["queue", "load_balancer"] = "queue"
    execution_timeout_s: int = Field(default=MIN_TIMEOUT_S, ge=MIN_TIMEOUT_S, le=MAX_TIMEOUT_S)
    flashboot: Literal["off", "on", "priority"] = "on"
    container_disk_gb: int = Field(default=20, ge=1)
    data_centers: tuple[Text, ...] = ()
    secrets: tuple[Variable, ...] = ()
    gpu: Gpu | None = None
    cpu: Cpu | None = None
    workers: Workers = Workers()
    scaling: Scaling = Scaling(queue_delay_s=4)
    volume: Volume | None = None
    registry: Registry | None = None
    http: Http | None = None
    env: dict[Variable, Value] = {}

    @property
    def digest(self) -> str | None:
        """The digest that pins the image, `sha256:` and 64 digits; None for a tag, which may move."""
        return digest_of(self.image)

    @property
    def secret_variables(self) -> tuple[str, ...]:
        """The names of all variables of the shell whose values are secrets."""
        keys = (self.registry.username_env, self.registry.password_env) if self.registry else ()
        return (*self.secrets, *(name for name in keys if name))

    @property
    def listens(self) -> Http:
        """Where a load-balancing worker listens."""
        return self.http or Http()

    @property
    def is_queue(self) -> bool:
        """Whether jobs come by RunPod's queue."""
        return self.type == "queue"

    @property
    def idle_timeout_s(self) -> int | None:
        """How long an idle worker is kept; None where RunPod takes no such number."""
        if self.is_queue and self.scaling.request_count is not None:
            return None
        return self.workers.idle_timeout_s or DEFAULT_IDLE_TIMEOUT_S


def digest_of(image: str | None) -> str | None:
    """Return the digest at the end of an image's reference, `sha256:` and 64 digits; None without one."""
    found = SHA256.search(image or "")
    return found[1] if found else None


def path_of(environment: str) -> Path:
    """Return the file that *environment* names: a path, or a name below deploy/environments."""
    if environment.endswith(".toml") or "/" in environment:
        return Path(environment)
    return ENVIRONMENTS / f"{environment}.toml"


def read(environment: str, overrides: Mapping[str, Any]) -> Config:
    """Return the configuration of *environment*; *overrides* are dotted keys that flags set.

    Raises DeployError if there is no such file, ConfigError with every fault of what is in it.
    """
    path = path_of(environment)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = ", ".join(sorted(each.stem for each in ENVIRONMENTS.glob("*.toml")))
        raise DeployError(
            f"there is no environment {environment}", hint=f"copy example.toml; there are: {there}"
        ) from None
    except (OSError, ValueError) as fault:  # TOML's and UTF-8's errors are ValueErrors
        raise DeployError(f"{path.name} cannot be read: {fault}") from None
    if any(key.startswith("scaling.") for key in overrides):
        document["scaling"] = {}  # of its two kinds, a flag's takes the place of the file's
    for key, value in overrides.items():
        _put(document, key.split("."), value)
    return parse(document, source=path.name)


def parse(document: dict[str, Any], *, source: str) -> Config:
    """Return the configuration that *document* holds; raises ConfigError with all faults."""
    faults: list[str] = []
    config = None
    try:
        config = Config.model_validate(document)
    except ValidationError as invalid:
        faults = [_told(error) for error in invalid.errors()]
    faults += faults_between(document)
    if faults or config is None:
        raise ConfigError(source, faults)
    return config


def _put(document: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set a dotted key; where the file has no table, its own value stays, and is told as a fault."""
    table = document
    for key in keys[:-1]:
        table = table.setdefault(key, {})
    if isinstance(table, dict):
        table[keys[-1]] = value


def _told(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] != "extra_forbidden":
        return f"{key}: {error['msg'][:1].lower()}{error['msg'][1:]}"
    model: type[BaseModel] = Config
    for part in error["loc"][:-1]:
        model = _PARTS.get(str(part), Config)
    close = difflib.get_close_matches(str(error["loc"][-1]), model.model_fields, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(model.model_fields)}"
    return f"{key}: no such key; {hint}"


_PARTS: Final[dict[str, type[BaseModel]]] = {
    "gpu": Gpu,
    "cpu": Cpu,
    "workers": Workers,
    "scaling": Scaling,
    "volume": Volume,
    "registry": Registry,
    "http": Http,
}
