"""The tools of the assistant for other programs, as a server of the Model Context Protocol over stdin and stdout.

Decided here: an error tells what an error of the API tells and no more; of an unexpected one only the class is told,
because its text might quote a header of a file, and nothing is logged that a tool was given or gave.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wetread.errors import UsageError, WetreadError, expected
from wetread.service.problems import problem_of
from wetread.service.tools import Tools

if TYPE_CHECKING:
    from mcp.server import MCPServer

__all__ = ["INSTRUCTIONS", "TOOLS", "build_server"]

INSTRUCTIONS = (
    "Recorded findings of machine readers of medical images, without patient data. Research use only, not a diagnosis. "
    "Say only what a fact says, cite its id, and say so where a reader's audit failed. Do not advise on treatment."
)
TOOLS = ("list_studies", "facts", "ask", "readers", "request_masks", "request_similar", "job")


def build_server(tools: Tools) -> MCPServer:
    """Return the server; its ``run("stdio")`` serves until stdin ends.

    Raises:
        UsageError: the package mcp is not installed.
    """
    try:
        from mcp.server import MCPServer
    except ImportError:
        raise UsageError(expected("the package mcp", "an installation without", "install wetread[mcp]")) from None
    from wetread import __version__

    server = MCPServer("wetread", instructions=INSTRUCTIONS, version=__version__, log_level="CRITICAL")
    for name in TOOLS:
        server.tool(name=name)(_guarded(getattr(tools, name)))
    return server


def _guarded(tool: Callable[..., Any]) -> Callable[..., Any]:
    from mcp.server.mcpserver.exceptions import ToolError

    @functools.wraps(tool)
    def run(*arguments: Any, **named: Any) -> Any:
        try:
            return tool(*arguments, **named)
        except WetreadError as error:
            problem = problem_of(error)
            raise ToolError(f"{problem.code}: {problem.message} {problem.hint}") from None
        except Exception as error:
            raise ToolError(f"internal: an unexpected {type(error).__name__}") from None

    return run
