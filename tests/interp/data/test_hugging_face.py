import datasets
import pytest

from interp.data.hugging_face import load

_ROWS = {"text": ["one", "two, three"], "label": [0, 1]}


@pytest.fixture
def table() -> datasets.Dataset:
    return datasets.Dataset.from_dict(_ROWS)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["json", "csv", "parquet"])
def test_plain_files_and_folders_of_them(table, tmp_path, monkeypatch, kind, streaming):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "files"
    folder.mkdir()
    getattr(table, f"to_{kind}")(str(folder / f"train.{kind}"))
    for source in (folder / f"train.{kind}", folder):
        rows = list(load(source, streaming=streaming, cache_dir=str(tmp_path / "cache")))
        assert [row["text"] for row in rows] == _ROWS["text"]


def test_text_has_a_row_a_line(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    rows = load(str(tmp_path / "a.txt"), cache_dir=str(tmp_path / "cache"))
    assert rows["text"][:] == ["one", "two"]


def test_saved_folders(table, tmp_path):
    table.save_to_disk(str(tmp_path / "one"))
    assert load(tmp_path / "one")[:] == _ROWS
    datasets.DatasetDict(train=table, test=table.select([1])).save_to_disk(str(tmp_path / "many"))
    assert len(load(tmp_path / "many", split="test")) == 1
    assert len(list(load(tmp_path / "many", streaming=True))) == 2
    with pytest.raises(ValueError, match=r"split is 'dev', but .* holds train, test: give one of them"):
        load(tmp_path / "many", split="dev")


def test_a_missing_name_offline_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"name_or_folder is 'nobody/nothing'.*`save_to_disk`.*") as caught:
        load("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_an_unknown_kind_of_file_is_refused(tmp_path):
    (tmp_path / "a.xlsx").write_text("")
    with pytest.raises(ValueError, match=r"a data file ends in one of \.json"):
        load(tmp_path / "a.xlsx")
