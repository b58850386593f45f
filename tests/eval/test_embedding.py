"""Which modalities an objective has embeddings of."""

from __future__ import annotations

from types import SimpleNamespace

from vtp.eval.embedding import compared_by


def test_texts_count_where_an_objective_needs_them_or_has_a_slot_for_them():
    def objective(**told):
        return SimpleNamespace(**{"needs": frozenset(), "slots": None, "embeds": {}, **told})

    both = {"video": ("video", "audio"), "audio": ("video", "audio")}
    assert compared_by(objective(needs=frozenset({"video", "text"}))) == {"video", "text"}
    assert compared_by(objective(needs=frozenset({"text"}), embeds=both)) == {"video", "audio", "text"}
    assert compared_by(objective(slots=frozenset({"video", "text"}), embeds=both)) == {"video", "audio", "text"}
    assert compared_by(objective(slots=frozenset({"video", "audio"}), embeds=both)) == {"video", "audio"}
