"""Run an offline copy of the gateway, for tests, demos and notebooks without a key.

```python
with Sandbox() as sandbox:
    llm = ChatEmpirioLabs(base_url=sandbox.base_url, api_key=sandbox.api_key)
```

The sandbox follows the gateway's documents and, where they are silent, DeepSeek's. It returns scripted
answers and scripted faults. With `local_model=True`, a small language model answers. Behaviour beyond the
documents is inferred, and the code says so.

`stand_in()` starts a sandbox only if no key is set, for scripts that should run with or without a key.
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
