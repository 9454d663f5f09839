import pytest

from analyses.commands import yaml_file


def read(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return yaml_file.read(path)


def test_learning_rates_are_numbers_and_files_may_be_json_or_empty(tmp_path):
    assert read(tmp_path, "a: 1e-3\nb: -2.5E+4\nc: 1\nd: 1.5\ne: e3\nf: '1e-3'") == {
        "a": 1e-3,
        "b": -2.5e4,
        "c": 1,
        "d": 1.5,
        "e": "e3",
        "f": "1e-3",
    }
    assert read(tmp_path, '{"a": {"b": null}}') == {"a": {"b": None}}
    assert read(tmp_path, "# nothing\n") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"run\.yaml cannot be read as YAML: the key 'a' is given twice in line 1"),
        ("a: [1,\nb: 2", r"run\.yaml cannot be read as YAML: .* in line \d"),
        ("- a\n- b\n", r"run\.yaml holds a list, but arguments are `key: value` lines"),
        (b"a: \xff\n", r"run\.yaml is not text in UTF-8"),
        ("a: !!python/object/apply:os.system [ls]", r"cannot be read as YAML: could not determine a constructor"),
        ("a: \x07", r"cannot be read as YAML"),
    ],
)
def test_what_is_not_arguments_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"--config is .*none\.yaml, but there is no such file"):
        yaml_file.read(tmp_path / "none.yaml")
