"""Search: ranks the passages of documents for a query by BM25."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.schema.builtin_models import Document, Passage
from orchestra.workflows.python.steps import tool


@tool(effect="pure", label="restricted")
def search(query: str, documents: Sequence[Document], top: int = 5) -> list[Passage]:
    """The passages that answer a query best, the best first.

    Documents are split into paragraphs. Each passage has its position in its document. Passages that share no word with
    the query are left out, so the list may be empty. Equal scores keep the order of the documents.

    Raises:
        InputError: T006 if bm25s is not installed.
    """
    from orchestra.documents.passages import split_passages
    from orchestra.documents.ranking import bm25_scores

    passages = split_passages(documents)
    if not passages or top < 1:
        return []
    found = bm25_scores([passage.text for passage in passages], query)
    ranked = sorted((index for index in range(len(passages)) if found[index] > 0), key=lambda at: (-found[at], at))
    return [passages[index].model_copy(update={"score": round(found[index], 6)}) for index in ranked[:top]]
