"""The gateway's wire, offline: for tests, demos and notebooks without a key.

```python
with Sandbox() as sandbox:
    llm = ChatEmpirioLabs(base_url=sandbox.base_url, api_key=sandbox.api_key)
```

It answers as the gateway's documents say and, where they are silent, as DeepSeek's do: with scripted
answers, scripted faults, or, with `local_model=True`, the words of a small language model. What it does
beyond the documents is an inference, and marked so in its code.

`stand_in()` serves one in the gateway's place unless there is a key, for scripts that run with and without.
"""

try:
    import starlette as _starlette  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
except ImportError as error:
    raise ImportError('The sandbox needs its extra: pip install "empiriolabs-adapters[sandbox]".') from error

from empiriolabs_core.sandbox.answers import Answer
from empiriolabs_core.sandbox.faults import Fault
from empiriolabs_core.sandbox.server import Sandbox
from empiriolabs_core.sandbox.stand_in import stand_in

__all__ = ["Answer", "Fault", "Sandbox", "stand_in"]
