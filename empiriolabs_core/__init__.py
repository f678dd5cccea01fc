"""What the LangChain and the LlamaIndex adapter share. Knows neither framework."""

__version__ = "0.1.0"
