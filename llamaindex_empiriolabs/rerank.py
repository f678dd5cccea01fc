"""`EmpirioLabsRerank`: EmpirioLabs rerank as a LlamaIndex node postprocessor."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base import EventContext
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher
from pydantic import ConfigDict
from typing_extensions import Unpack

from empiriolabs_core.errors import SettingsError
from empiriolabs_core.vectors import Ranked, RerankFields

if TYPE_CHECKING:
    from llamaindex_empiriolabs.signatures import LlamaIndexRerankArguments


dispatcher = get_dispatcher(__name__)


class EmpirioLabsRerank(RerankFields, BaseNodePostprocessor):
    """Sorts nodes by relevance to a query, for `node_postprocessors=[...]` of a query engine.

    The rerank model sets the nodes' scores. All arguments are fields of
    `empiriolabs_core.vectors.RerankFields`.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    if TYPE_CHECKING:

        def __init__(self, **arguments: Unpack[LlamaIndexRerankArguments]) -> None: ...

    @classmethod
    def class_name(cls) -> str:
        """Return the class name used in serialised data."""
        return "EmpirioLabsRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._event(nodes, query_bundle) as event:
            return _ended(event, _ordered(nodes, self.rerank(_query(query_bundle), _texts(nodes))))

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._event(nodes, query_bundle) as event:
            return _ended(event, _ordered(nodes, await self.arerank(_query(query_bundle), _texts(nodes))))

    def _event(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None
    ) -> AbstractContextManager[EventContext]:
        """Emit the event that a rerank starts, and return the event for callbacks."""
        query, top_n = _query(query_bundle), self.top_n or len(nodes)
        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=self.model))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: top_n,
        }
        return (self.callback_manager or CallbackManager()).event(CBEventType.RERANKING, payload)


def _ended(event: EventContext, ranked: list[NodeWithScore]) -> list[NodeWithScore]:
    event.on_end({EventPayload.NODES: ranked})
    dispatcher.event(ReRankEndEvent(nodes=ranked))
    return ranked


def _query(bundle: QueryBundle | None) -> str:
    if bundle is None:
        raise SettingsError("A rerank requires a query. Pass query_bundle or query_str.")
    return bundle.query_str


def _texts(nodes: list[NodeWithScore]) -> list[str]:
    return [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]


def _ordered(nodes: list[NodeWithScore], ranking: list[Ranked]) -> list[NodeWithScore]:
    return [NodeWithScore(node=nodes[place].node, score=score) for place, score in ranking]
