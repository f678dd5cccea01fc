"""What the LangChain and the LlamaIndex adapter share. Knows neither framework."""

__version__ = "0.1.0"

from empiriolabs_core.installation import check_installation as _check_installation

_check_installation()
