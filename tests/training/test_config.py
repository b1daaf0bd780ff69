import pytest
from hypothesis import given
from hypothesis import strategies as st

from equitorch.models import checkpoint
from equitorch.training.config import Config, ConfigError

SAMPLE = """\
data:
  train: train.xyz
  valid: 10%
  test:  test.xyz
  keys: {energy: auto, forces: auto, stress: auto}
model:
  name: toy
  cutoff: 5.0
  channels: 64
  reference_energies: auto
train:
  epochs: 200
  batch: auto
  lr: 1e-3
  schedule: plateau
  ema: 0.999
  loss: {energy: 1, forces: 10, stress: 1}
  precision: float32
  seed: 1
output: runs/cu
"""


class Toy:
    def __init__(self, *, channels: int = 8, cutoff: float = 4.0, mode: str | None = None) -> None:
        pass


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(checkpoint.MODELS, "toy", f"{__name__}:Toy")
    monkeypatch.chdir(tmp_path)
    for name in ("train.xyz", "test.xyz"):
        (tmp_path / name).touch()
    (tmp_path / "cu.yaml").write_text(SAMPLE)
    return tmp_path


def problems(text, overrides=()):
    with open("bad.yaml", "w") as file:
        file.write(text)
    with pytest.raises(ConfigError) as caught:
        Config.from_file("bad.yaml", overrides)
    return [str(problem) for problem in caught.value.problems]


def test_reads_the_documented_sample():
    config = Config.from_file("cu.yaml", ["train.epochs=3", "model.cutoff=4"])
    assert config.train.lr == 1e-3
    assert config.train.epochs == 3
    assert config.train.schedule.name == "plateau"
    assert config.model.options == {"cutoff": 4, "channels": 64}
    assert config.output == "runs/cu"


def test_reads_back_what_it_writes():
    config = Config.from_file(
        "cu.yaml", ["train.schedule={name: plateau, factor: 0.5}", "model.reference_energies={No: -1}"]
    )
    (text := config.to_yaml(full=True)).index("No")
    with open("copy.yaml", "w") as file:
        file.write(text)
    copy = Config.from_file("copy.yaml")
    assert copy.to_dict(full=True) == config.to_dict(full=True)
    assert copy.digest() == config.digest()
    assert copy.digest() != Config.from_file("copy.yaml", ["train.seed=9"]).digest()
    assert copy.digest(without=["train.seed"]) == Config.from_file("copy.yaml", ["train.seed=9"]).digest(
        without=["train.seed"]
    )


def test_collects_all_problems_with_their_lines():
    text = SAMPLE.replace("cutoff", "cutof").replace("200", "ten").replace("train.xyz", "trian.xyz")
    assert problems(text) == [
        "bad.yaml:2  data.train: file 'trian.xyz' not found; did you mean 'train.xyz'?",
        "bad.yaml:8  model.cutof: unknown setting; did you mean 'cutoff'?",
        "bad.yaml:12  train.epochs: expected an integer, got 'ten'",
    ]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.lr=-1", "train.lr: expected a number > 0, got -1"),
        ("train.lr=fast", "train.lr: expected a number, got 'fast'"),
        ("train.schedule=plato", "train.schedule.name: expected one of plateau, cosine, constant, got"),
        ("train.schedule.patence=3", "train.schedule.patence: unknown setting; did you mean 'patience'?"),
        ("train.precision=float16", "train.precision: expected one of float32, float64"),
        ("train.batch=0", "train.batch: expected auto or a positive number of frames, got 0"),
        ("train.epochs=1.5", "train.epochs: expected an integer, got 1.5"),
        ("train.seed=true", "train.seed: expected an integer, got True"),
        ("train.loss.force=1", "train.loss.force: unknown setting; did you mean 'forces'?"),
        ("epochs=3", "epochs: unknown setting; did you mean 'train.epochs'?"),
        ("trian.epochs=3", "trian: unknown setting; did you mean 'train'?"),
        ("data.valid=120%", "data.valid: expected a file, a share such as 10%, or a number of frames"),
        ("data.valid=valid.xyz", "data.valid: file 'valid.xyz' not found"),
        ("data.train=3", "data.train: expected a file or a list of files, got 3"),
        ("model.name=tensorent", "model.name: no model is called 'tensorent'; did you mean 'tensornet'?"),
        ("model.channels=many", "model.channels: expected an integer, got 'many'"),
        ("model.mode=3", "model.mode: expected text"),
        ("model.reference_energies={Xx: 1}", "model.reference_energies: 'Xx' is not the symbol"),
        ("train=3", "train: expected a section with keys, got 3"),
        ("nonsense", "nonsense: expected key=value"),
    ],
)  # fmt: skip
def test_says_what_it_expected(override, words):
    assert any(problem.startswith(f"command line  {words}") for problem in problems(SAMPLE, [override]))


LEAVES = [
    "train.epochs",
    "train.batch",
    "train.patience",
    "train.precision",
    "data.group",
    "data.valid",
    "model.channels",
]


@given(st.sampled_from(LEAVES), st.data())
def test_names_the_right_key_for_every_slip_of_a_finger(name, data):
    section, _, key = name.partition(".")
    at = data.draw(st.integers(1, len(key) - 1))
    slip = data.draw(
        st.sampled_from([key[:at] + key[at + 1 :], key[:at] + "q" + key[at:], key[:at] + "q" + key[at + 1 :]])
    )
    if slip == key:
        return
    with pytest.raises(ConfigError, match=f"{section}.{slip}: unknown setting; did you mean '{key}'"):
        Config.from_dict({"data": {"train": "train.xyz"}, "model": {"name": "toy"}}, [f"{section}.{slip}=1"])


def test_needs_nothing_but_a_file(folder):
    config = Config.for_data("train.xyz")
    assert (config.model.name, config.output) == ("tensornet", "runs/train")
    with pytest.raises(ConfigError, match=r"data\.train: is required"):
        Config.from_dict({"data": {}})


def test_offers_a_schema_to_editors():
    schema = Config.json_schema()
    assert set(schema["properties"]) == {"data", "model", "train", "output"}
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("model", ["tensornet", "tensornet2"])
def test_finds_numbers_that_make_no_model_with_their_line(model):
    text = SAMPLE.replace("name: toy", f"name: {model}")
    (found,) = problems(text.replace("channels: 64", "channels: -3"))
    assert found.startswith("bad.yaml:9  model.channels: TensorNet")
    assert found.endswith("expects channels to be a whole number >= 2, got -3")
    (found,) = problems(text.replace("cutoff: 5.0", "cutoff: 0"))
    assert found.startswith("bad.yaml:8  model.cutoff: TensorNet")
    (found,) = problems(text, ["model.lower=7"])
    assert found.startswith("command line  model.lower: TensorNet")
    (found,) = problems(text, ["model.activation=step"])
    assert "model.activation: an activation is one of" in found
