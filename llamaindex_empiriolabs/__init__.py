"""EmpirioLabs models in LlamaIndex."""

try:
    import llama_index.core as _  # noqa: F401
except ImportError as error:
    raise ImportError(
        'llamaindex_empiriolabs needs LlamaIndex: pip install "empiriolabs-adapters[llamaindex]".'
    ) from error

from empiriolabs_core import __version__
from llamaindex_empiriolabs.embeddings import EmpirioLabsEmbedding
from llamaindex_empiriolabs.llms import EmpirioLabs
from llamaindex_empiriolabs.rerank import EmpirioLabsRerank

__all__ = ["EmpirioLabs", "EmpirioLabsEmbedding", "EmpirioLabsRerank", "__version__"]
