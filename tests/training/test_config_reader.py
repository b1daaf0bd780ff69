import pytest
from hypothesis import given
from hypothesis import strategies as st

from equitorch.training.config_reader import (
    ConfigError,
    Document,
    Problem,
    override,
    parse,
    read,
    scalar,
    suggestion,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1.", 1.0),
        (".5", 0.5), ("-2e5", -2e5), ("012", 12), ("0x10", 16), ("0o17", 15), ("+3", 3),
        ("No", "No"), ("on", "on"), ("y", "y"), ("off", "off"), ("1:30", "1:30"), ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"), ("true", True), ("~", None), ("", None), (".inf", float("inf")),
    ],
)  # fmt: skip
def test_reads_scalars_as_yaml_1_2_does(text, value):
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)
    assert parse(f"key: {text}").values == {"key": value}


def test_keeps_quoted_text_and_names_of_elements():
    values = parse("a: '1e-3'\nenergies: {No: -1, Y: 2.5, N: 3}\nb: [1, x]").values
    assert values == {"a": "1e-3", "energies": {"No": -1, "Y": 2.5, "N": 3}, "b": [1, "x"]}


def test_knows_the_line_of_every_key():
    document = parse("data:\n  train: a.xyz\n\nmodel:\n  cutoff: 5")
    assert document.lines == {("data",): 1, ("data", "train"): 2, ("model",): 4, ("model", "cutoff"): 5}
    assert document.problem(("model", "cutoff", "x"), "bad").line == 5


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\na: 2", 2, "is set twice"),
        ("a: [1,\nb: 2", 2, "not readable"),
        ("a: &x 1\nb: *x", 2, "aliases"),
        ("a: !!python/object/apply:os.system [x]", 1, "tag"),
        ("- 1", 1, "sections"),
    ],
)
def test_reports_what_it_does_not_accept(text, line, words):
    document = parse(text, "c.yaml")
    if "tag" in words:
        assert document.values == {"a": ["x"]}  # plain text, nothing is built
        document = parse("a: !!python/name:os.system x", "c.yaml")
    assert [(p.line, words in p.message, p.source) for p in document.problems] == [(line, True, "c.yaml")]


@given(st.text(max_size=60))
def test_never_raises(text):
    assert isinstance(parse(text), Document)


def test_overrides_win_and_are_named_as_such():
    document = parse("train: {lr: 1}\nmodel: 3", "c.yaml")
    override(document, ["train.lr=1e-4", "model.x.y=[1, 2]", "data.valid=", "nonsense"])
    assert document.values == {"train": {"lr": 1e-4}, "model": {"x": {"y": [1, 2]}}, "data": {"valid": None}}
    assert str(document.problem(("train", "lr"), "bad")) == "command line  train.lr: bad"
    assert "key=value" in document.problems[0].message


def test_says_what_it_expected(tmp_path):
    assert suggestion("cutof", ["cutoff"]) == "did you mean 'cutoff'?"
    error = ConfigError([Problem("model.cutof", "unknown setting; did you mean 'cutoff'?", 4, "cu.yaml")])
    assert (
        str(error)
        == "Config has 1 problem:\n  cu.yaml:4  model.cutof: unknown setting; did you mean 'cutoff'?"
    )
    (tmp_path / "cu.yaml").write_text("a: 1")
    (problem,) = read(tmp_path / "cuu.yaml").problems
    assert "not found; did you mean" in problem.message
