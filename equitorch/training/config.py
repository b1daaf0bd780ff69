"""One file a run: what is trained on what, how, and where it is written; mistakes are named at once."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from equitorch.training import config_reader
from equitorch.training.config_check import explain, file_problems, model_options, model_problems
from equitorch.training.config_reader import ConfigError, Document, Problem


def _amount(value: Any) -> Any:
    """Read ``10%``, a number of frames, or a file name."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    if isinstance(value, str):
        share = value.strip().removesuffix("%")
        if share == value.strip() or (share.replace(".", "", 1).isdigit() and 0 <= float(share) < 100):
            return value.strip()
    raise ValueError(f"expected a file, a share such as 10%, or a number of frames, got {value!r}")


def _batch(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError(f"expected auto or a positive number of frames, got {value!r}")


def _number_or_auto(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise ValueError(f"expected auto or a number, got {value!r}")


def _weight(value: Any) -> Any:
    if _number_or_auto(value) == "auto" or value >= 0:
        return value
    raise ValueError(f"expected auto or a number >= 0, got {value!r}")


def _energies(value: Any) -> Any:
    """Read ``auto``, ``none``, or a mapping from elements to energies in eV."""
    if value is None or value in ("auto", "none"):
        return value or "none"
    if not isinstance(value, Mapping):
        raise ValueError(f"expected auto, none, or energies such as {{Cu: -3.51}} in eV, got {value!r}")
    from ase.data import atomic_numbers

    for element, energy in value.items():
        if str(element) not in atomic_numbers and not str(element).isdigit():
            raise ValueError(f"'{element}' is not the symbol of an element")
        if isinstance(energy, bool) or not isinstance(energy, int | float):
            raise ValueError(f"the energy of {element} must be a number in eV, got {energy!r}")
    return {str(element): float(energy) for element, energy in value.items()}


def _schedule(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _files(value: Any) -> Any:
    if isinstance(value, str) or (
        isinstance(value, list) and value and all(isinstance(v, str) for v in value)
    ):
        return value
    raise ValueError(f"expected a file or a list of files, got {value!r}")


_text_or_number = WithJsonSchema({"type": ["string", "integer", "null"]})
Amount = Annotated[str | int | None, BeforeValidator(_amount), _text_or_number]
Files = Annotated[str | list[str], BeforeValidator(_files)]
Auto = Annotated[
    float | str, BeforeValidator(_number_or_auto), WithJsonSchema({"type": ["string", "number"]})
]
Weight = Annotated[float | str, BeforeValidator(_weight), WithJsonSchema({"type": ["string", "number"]})]
Batch = Annotated[str | int, BeforeValidator(_batch), WithJsonSchema({"type": ["string", "integer"]})]


class Section(BaseModel):
    """A part of the config: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class Keys(Section):
    """Names of the labels in the files; ``auto`` tries the usual ones, ``none`` ignores the label."""

    energy: str = "auto"
    forces: str = "auto"
    stress: str = "auto"


class Data(Section):
    """Where the frames come from. Files are looked for from the current folder."""

    train: Files = Field(description="any file that ASE reads, or a list of files")
    valid: Amount = Field(default="10%", description="a share or number of the training frames, or a file")
    test: Amount = Field(default=None, description="as for valid")
    keys: Keys = Keys()
    group: str = Field(default="auto", description="info key whose values stay whole in one split; or none")
    cache: str | None = Field(default=None, description="folder for flat copies that are read from disk")
    energy_unit: str = Field(default="eV", description="unit of the energies in the files")
    length_unit: str = Field(default="Angstrom", description="unit of the positions in the files")


class Model(BaseModel):
    """A model of the table; every further key is a keyword of its constructor."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, populate_by_name=True)

    name: str = "tensornet"
    from_: str | None = Field(
        default=None, alias="from", description="a model file whose weights are trained further"
    )
    reference_energies: Annotated[str | dict[str, float], BeforeValidator(_energies)] = Field(
        default="auto", description="eV per element; auto: isolated atoms if present, else a ridge fit"
    )
    scale: Auto = Field(
        default="auto", description="eV; auto: force rms (times 1 A), or the spread of the energy per atom"
    )
    shift: Auto = Field(
        default="auto", description="eV per atom; auto: what fitted references leave, 0 with isolated atoms"
    )

    @property
    def options(self) -> dict[str, Any]:
        """The keywords of the constructor."""
        return dict(self.model_extra or {})


class Schedule(Section):
    """How the learning rate goes on after the warm-up."""

    name: Literal["plateau", "cosine", "constant"] = "cosine"
    factor: float = Field(default=0.8, gt=0, lt=1, description="plateau: the rate is multiplied by this")
    patience: int = Field(
        default=25, ge=0, description="plateau: epochs without a better validation loss before that"
    )
    min_lr: float = Field(
        default=1e-6, ge=0, description="plateau and cosine: the rate does not fall below this"
    )


class Loss(Section):
    """Weights of the labels; errors are measured in units of the spread of the training labels.

    With ``normalize`` the weights compare alike quantities whatever the data; without it the errors are
    in eV/atom, eV/Å and eV/Å^3.
    """

    energy: Weight = Field(default="auto", description="auto: 1 where there are energies")
    forces: Weight = Field(default="auto", description="auto: 10 where there are forces")
    stress: Weight = Field(default="auto", description="auto: 1 where there is stress")
    kind: Literal["mse", "mae", "huber"] = "mse"
    delta: float = Field(default=0.1, gt=0, description="huber: errors above this count linearly")
    normalize: bool = True


class Train(Section):
    """How the weights are found."""

    epochs: int = Field(default=200, gt=0)
    batch: Batch = "auto"
    lr: float = Field(default=1e-3, gt=0)
    warmup: int = Field(default=500, ge=0, description="steps over which the rate rises linearly")
    schedule: Annotated[Schedule, BeforeValidator(_schedule)] = Schedule()
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float | None = Field(default=10.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(
        default=0.999, ge=0, lt=1, description="decay of the averaged weights; 0 switches the average off"
    )
    loss: Loss = Loss()
    patience: int | None = Field(
        default=None, gt=0, description="stop after so many epochs without a better validation loss"
    )
    precision: Literal["float32", "float64"] = "float32"
    seed: int = Field(default=1, ge=0)
    max_minutes: float | None = Field(
        default=None, gt=0, description="end cleanly before so much time has passed"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, or cuda:1")
    tensorboard: bool = Field(
        default=False, description="write curves for TensorBoard too (an extra package)"
    )


class Config(Section):
    """A whole run.

    >>> Config.for_data("train.xyz", check_files=False).train.schedule.name
    'cosine'
    """

    data: Data
    model: Model = Model()
    train: Train = Train()
    output: str = "runs/model"

    @classmethod
    def from_file(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML file, apply ``key=value`` overrides and check everything.

        Raises:
            ConfigError: listing every problem with its line.
        """
        document = config_reader.read(path)
        if document.problems and not document.sources:
            raise ConfigError(document.problems)
        document.values.setdefault("output", f"runs/{Path(path).stem}")
        config_reader.override(document, overrides)
        return cls._checked(document, check_files=True)

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], overrides: Sequence[str] = (), *, check_files: bool = True
    ) -> Self:
        """Check nested plain values, such as a YAML file holds.

        Raises:
            ConfigError: listing every problem.
        """
        document = Document(values=json.loads(json.dumps(values)))
        config_reader.override(document, overrides)
        return cls._checked(document, check_files=check_files)

    @classmethod
    def for_data(cls, train: str | Path, overrides: Sequence[str] = (), *, check_files: bool = True) -> Self:
        """A config for one file of frames, with a model half as wide as the published one."""
        stem = Path(str(train).removeprefix("shipped:")).stem
        values = {"data": {"train": str(train)}, "model": {"channels": 64}, "output": f"runs/{stem}"}
        return cls.from_dict(values, overrides, check_files=check_files)

    @classmethod
    def _checked(cls, document: Document, *, check_files: bool) -> Self:
        config, problems = None, list(document.problems)
        try:
            config = cls.model_validate(document.values)
        except ValidationError as error:
            problems += explain(error, cls, document)
        problems += model_problems(document)
        problems += file_problems(document) if check_files else []
        if problems or config is None:
            raise ConfigError(sorted(problems, key=lambda problem: problem.line or 0))
        return config

    def to_dict(self, *, full: bool = False) -> dict[str, Any]:
        """Plain values; ``full`` adds the defaults of the model's constructor."""
        values = self.model_dump(by_alias=True)
        if full:
            values["model"] = {**values["model"], **model_options(self.model.name), **self.model.options}
        if values["model"]["from"] is None:
            del values["model"]["from"]
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain

    def to_yaml(self, *, full: bool = False) -> str:
        """The config as a file that :meth:`from_file` reads back to the same values."""
        return yaml.dump(self.to_dict(full=full), Dumper=_Dumper, sort_keys=False, allow_unicode=True)

    def digest(self, *, without: Sequence[str] = ()) -> str:
        """Hash of the settings, leaving out the dotted keys ``without``."""
        values = self.to_dict(full=True)
        for key in without:
            *path, last = key.split(".")
            section = values
            for part in path:
                section = section[part]
            section.pop(last, None)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON schema, with which editors complete and check config files."""
        return cls.model_json_schema(by_alias=True)


class _Dumper(yaml.SafeDumper):
    """Quotes every string that YAML 1.1 readers take for something else; numbers keep their point."""


def _float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    mantissa, mark, exponent = repr(value).partition("e")
    text = mantissa + ("" if "." in mantissa or not mark else ".0") + mark + exponent
    return dumper.represent_scalar(
        "tag:yaml.org,2002:float", {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(text, text)
    )


def _str(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = None if config_reader.scalar(value) == value else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)


_Dumper.add_representer(float, _float)
_Dumper.add_representer(str, _str)

__all__ = ["Config", "ConfigError", "Problem"]
