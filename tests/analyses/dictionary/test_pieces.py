import numpy as np

from analyses.dictionary.pieces import Pieces


def test_pieces_of_all_items_lie_end_to_end():
    texts = [("a", "b<"), (), ("é", "a", "\ud800")]
    pieces = Pieces(texts)
    assert pieces.lengths.tolist() == [2, 0, 3] and pieces.begin.tolist() == [0, 2, 2]
    assert pieces.vocabulary == ["a", "b<", "é", "\ud800"]
    assert [pieces.vocabulary[i] for i in pieces.ids] == [piece for text in texts for piece in text]


def test_items_without_pieces_have_no_vocabulary():
    for texts in ([], [(), ()]):
        pieces = Pieces(texts)
        assert pieces.vocabulary == [] and pieces.ids.dtype == np.int32 and len(pieces.ids) == 0
        assert pieces.lengths.tolist() == pieces.begin.tolist() == [0] * len(texts)
