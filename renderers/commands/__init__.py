"""The commands of ``pers``, one module for each, and how they end."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import typer
from typer.main import get_command

from renderers.commands import options
from renderers.commands.bench import run_benchmarks
from renderers.commands.info import show_info
from renderers.commands.share import share
from renderers.commands.stress import run_stress
from renderers.commands.triangle import draw_triangle

__all__ = ["app", "run"]

app = typer.Typer(
    help="GPU buffers, rendering, shared textures: look at this machine, draw, share, measure.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("info")(show_info)
app.command("triangle")(draw_triangle)
app.command("stress")(run_stress)
app.add_typer(share, name="share")
app.command("bench")(run_benchmarks)


def run(arguments: Sequence[str]) -> int:
    """Run a command; whatever goes wrong becomes one line on stderr and an exit status."""
    options.set_verbose(False)
    try:
        command = get_command(app)
        status = command.main(
            list(arguments) or ["--help"], prog_name="pers", standalone_mode=False
        )
        return status if isinstance(status, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        if options.is_verbose():
            traceback.print_exc()
        print(f"pers: error: {_reason(error)}", file=sys.stderr)
        return int(getattr(error, "exit_code", 1))


def _reason(error: Exception) -> str:
    """Say in one line what went wrong."""
    # What typer raises for bad arguments has its message there, with the option's name.
    message = getattr(error, "format_message", error.__str__)()
    return " ".join(message.split()) or type(error).__name__
