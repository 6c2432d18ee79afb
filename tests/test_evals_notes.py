"""What a reader of an evaluation is told beside its numbers."""

from __future__ import annotations

from polygraft.evals.notes import notes
from polygraft.evals.run import Job


def test_a_corpus_of_one_document_is_told_apart_from_many():
    jobs = [Job("ru", documents=("a long novel",)), Job("en", documents=("a line", "another")), Job("sw", documents=("x" * 99,))]
    told = notes(jobs, [{}, {}, {}], limit=None, max_bytes=50)
    assert told[0] == "Corpora were read until 50 bytes." and "of ru, sw is one document" in told[1] and len(told) == 2
    assert notes(jobs[1:2], [{}], limit=None, max_bytes=50) == ()
