"""Define the commands: parse, call one function, print. One file per family of commands."""

from __future__ import annotations

import codecs
import io
import json
import sys
import traceback
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

import typer

from audiobert.cli.threads import VARIABLE, let_waiting_threads_sleep, set_threads
from audiobert.errors import AudioBertError, out_of_memory

app = typer.Typer(
    name="audiobert",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Each module registers its commands on `app` through `register(app)`.
_FAMILIES = ("sentence", "bank", "data", "evaluate", "train", "construct", "web")
# What typer returns for Ctrl+C.
_INTERRUPTED = 130


def _version(show: bool) -> None:
    if show:
        from audiobert import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Show the whole traceback of an error."),
    threads: int | None = typer.Option(
        None,
        "--threads",
        min=1,
        envvar=VARIABLE,
        callback=set_threads,
        help="Threads to compute on; by default 1 for a single sentence, else one per core.",
    ),
) -> None:
    """Run a command of AudioBERT, a language model that looks up how things sound.

    Example: audiobert fill-mask "Meow is the sound a [MASK] makes."
    """


for _family in _FAMILIES:
    import_module(f"audiobert.cli.{_family}").register(app)


def _fail(message: str, exit_code: int) -> int:
    print("audiobert: " + " ".join(message.split()), file=sys.stderr)
    return exit_code


def _find_command(arguments: list[str]) -> tuple[Any, list[str]]:
    """Return the command, or the group of commands, that arguments name, and the arguments after it."""
    command: Any = typer.main.get_command(app)
    for index, argument in enumerate(arguments):
        inner = getattr(command, "commands", {}).get(argument)
        if inner is None:
            return command, arguments[index:]
        command = inner
    return command, []


def _split_threads(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return `--threads` with its value, which may stand anywhere before `--`, and the other arguments."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for index, argument in enumerate(arguments[:end]):
        if argument == "--threads" or argument.startswith("--threads="):
            after = index + (2 if argument == "--threads" else 1)
            return arguments[index:after], arguments[:index] + arguments[after:]
    return [], arguments


def _interrupted(arguments: list[str]) -> int:
    """Say how the interrupted command resumes."""
    command, _ = _find_command(arguments)
    kept = "what was done so far is kept; the same command"
    options = {name for parameter in command.params for name in parameter.opts}
    if "--resume" in options:
        how = f"{kept} with --resume continues from there"
    elif arguments[:1] in (["ablate"], ["construct"]):  # each looks itself for what is done
        how = f"{kept} continues from there"
    elif "--out" in options:
        how = "what was finished is kept in --out; the same command starts again"
    else:
        how = "the same command starts again"
    return _fail(f"interrupted; {how}", 1)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit status: 0 success, 2 bad usage or input, 1 anything else."""
    debug = "--debug" in arguments
    threads, arguments = _split_threads([argument for argument in arguments if argument != "--debug"])
    try:
        command, rest = _find_command(arguments)
        if hasattr(command, "commands") and not rest:  # a group alone: its help, as of a wrong usage
            with redirect_stdout(sys.stderr):
                app(args=[*arguments, "--help"], standalone_mode=False, prog_name="audiobert")
            return 2
        status = app(args=[*threads, *arguments], standalone_mode=False, prog_name="audiobert") or 0
        return _interrupted(arguments) if status == _INTERRUPTED else status
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(arguments)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _explain(error, arguments, debug=debug)


def _explain(error: Exception, arguments: list[str], *, debug: bool) -> int:
    """Print one line about an error and return the exit status; with `debug`, its traceback was printed."""
    if isinstance(error, typer.TyperException):
        message = error.format_message().replace("Value error, ", "")
        stop = "" if message.endswith((".", "?")) else "."
        named = arguments[: len(arguments) - len(_find_command(arguments)[1])]
        return _fail(f"{message}{stop} See '{' '.join(['audiobert', *named, '--help'])}'.", 2)
    if isinstance(error, AudioBertError):
        return _fail(str(error), error.exit_code)
    if out_of_memory(error):
        return _fail(
            "not enough memory: lower --batch-size (evaluate, bank build) or ask about fewer texts at once; in a"
            " training raise micro_batches, set gradient_checkpointing, or lower batch_size in its config",
            2,
        )
    if debug:
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
    """Run the command line of this process."""
    use_utf8()
    let_waiting_threads_sleep()
    sys.exit(run(sys.argv[1:]))
