import numpy as np
import pytest
import torch

from analyses.dictionary.contents import Contents
from interp.stores.memory import MemoryStore
from interp.types import Inputs


def test_texts_and_pictures_are_what_the_harvest_gave_the_model(mapped_bundles, tmp_path):
    texts, images = mapped_bundles.text_case(tmp_path / "t"), mapped_bundles.image_case(tmp_path / "i")
    contents = Contents(texts.model, texts.store)
    numbers = [i for i, item in enumerate(texts.store.items) if len(item.tokens)][:5]
    expected = texts.model.collate([texts.model.tokenize([texts.dataset[i]["text"]], 64)[0].tokens for i in numbers])
    assert torch.equal(contents.inputs(numbers).tensors["input_ids"], expected.tensors["input_ids"])
    assert contents.lengths(np.array(numbers * 2)).tolist() == expected.mask.sum(1).tolist() * 2
    expected = images.model.collate([images.dataset[i]["image"] for i in (4, 2)]).tensors["pixel_values"]
    for own in (Contents(images.model, images.store), Contents(images.model, images.store, dataset=images.dataset)):
        assert torch.equal(own.inputs([4, 2]).tensors["pixel_values"], expected)


def test_other_items_come_through_their_collate(mapped_bundles, tmp_path):
    case = mapped_bundles.image_case(tmp_path / "i")
    rows = torch.randn(3, 2)
    contents = Contents(case.model, case.store, dataset=rows, collate=lambda items: Inputs({"x": torch.stack(items)}))
    assert torch.equal(contents.inputs([2, 0]).tensors["x"], rows[[2, 0]])


def test_what_is_not_there_is_asked_for(mapped_bundles, tmp_path):
    case = mapped_bundles.text_case(tmp_path / "t")
    bare = MemoryStore(case.store.span(0, len(case.store)))
    with pytest.raises(ValueError, match="the store keeps nothing of item 3, but the model is given what it was made"):
        Contents(case.model, bare).inputs([3])
    with pytest.raises(ValueError, match="collate is given, but no dataset: give the one that was harvested"):
        Contents(case.model, case.store, collate=lambda items: Inputs({}))
    with pytest.raises(ValueError, match="dataset is read from its start only, but items are found by number"):
        Contents(case.model, case.store, dataset=iter([]))
