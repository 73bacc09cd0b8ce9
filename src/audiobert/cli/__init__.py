"""The commands: parse, call one function, print. One file a family of commands; the forms are fixed by the contract."""

from __future__ import annotations

import codecs
import io
import json
import sys
import traceback
from importlib import import_module

import typer
from typer._click import exceptions as click_exceptions

from audiobert.errors import AudioBertError, out_of_memory

app = typer.Typer(
    name="audiobert",
    help="A language model that knows what the world sounds like.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Each module registers its commands on `app` through `register(app)`.
_FAMILIES = ("sentence", "bank", "data", "evaluate", "train", "construct", "web")


def _version(show: bool) -> None:
    if show:
        from audiobert import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Show the whole traceback of an error."),
) -> None:
    """A language model that knows what the world sounds like."""


for _family in _FAMILIES:
    import_module(f"audiobert.cli.{_family}").register(app)


def _fail(message: str, exit_code: int) -> int:
    print("audiobert: " + " ".join(message.split()), file=sys.stderr)
    return exit_code


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit status: 0 success, 2 bad usage or input, 1 anything else."""
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return app(args=arguments, standalone_mode=False, prog_name="audiobert") or 0
    except click_exceptions.NoArgsIsHelpError as error:
        print(error.ctx.get_help() if error.ctx else error.format_message(), file=sys.stderr)
        return 2
    except click_exceptions.ClickException as error:
        if debug:
            traceback.print_exc()
        return _fail(f"{error.format_message().rstrip('.')}. See 'audiobert --help'.", 2)
    except AudioBertError as error:
        if debug:
            traceback.print_exc()
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted; what was done so far is kept where the command can resume", 1)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        if out_of_memory(error):
            if debug:
                traceback.print_exc()
            return _fail(
                "not enough memory: lower --batch-size (evaluate, bank build) or ask about fewer texts at once; in a"
                " training raise micro_batches, set gradient_checkpointing, or lower batch_size in its config",
                2,
            )
        if debug:
            traceback.print_exc()
            return 1
        return _fail(f"{type(error).__name__}: {error} (run again with --debug for the traceback)", 1)


def use_utf8() -> None:
    """Read stdin as UTF-8 whatever the locale says; escape what the encoding of stdout or stderr cannot write.

    A byte of stdin that is not UTF-8 becomes a lone surrogate, which `text_fault` finds. The escapes are those of JSON,
    so that printed JSON stays JSON.
    """
    codecs.register_error("json-escape", _json_escape)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="json-escape")


def _json_escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def main() -> None:
    """Entry point of the `audiobert` command."""
    use_utf8()
    sys.exit(run(sys.argv[1:]))
