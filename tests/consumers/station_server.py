"""An MCP server over standard input and output: python station_server.py."""

from mcp.server.fastmcp import FastMCP
from mcp.server.fastmcp.exceptions import ToolError

server = FastMCP("station", log_level="ERROR")


@server.tool()
def read_gauge(name: str) -> str:
    """Read a gauge of the station."""
    if name != "snow":
        raise ToolError(f"There is no gauge {name!r}.")
    return "12 cm"


@server.tool()
def list_gauges() -> list[str]:
    """List the gauges of the station."""
    return ["snow", "wind"]


@server.prompt()
def report(place: str) -> str:
    """Ask for a report."""
    return f"Read the gauge of snow at {place}."


server.run()
