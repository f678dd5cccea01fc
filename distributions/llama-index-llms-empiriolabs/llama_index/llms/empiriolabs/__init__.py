"""EmpirioLabs models in LlamaIndex. The class is that of `llamaindex_empiriolabs`."""

from llamaindex_empiriolabs import EmpirioLabs

__all__ = ["EmpirioLabs"]
