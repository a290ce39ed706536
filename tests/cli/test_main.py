import os
import shlex
import subprocess
import sys

import pytest

import fastbp
from fastbp.cli import train
from fastbp.cli.options import CommandFailed, UsageError

COMMANDS = ("train", "check", "predict", "bench", "info", "warmup")


# -- Help -----------------------------------------------------------------------------------------


def test_version(run):
    assert run("--version") == (0, f"fastbp {fastbp.__version__}\n", "")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_command(run, flag):
    code, out, err = run(flag)
    assert (code, err) == (0, "")
    assert all(f"\n    {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(run, command):
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: fastbp {command} ")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (
            "train",
            "--data --data-dir --hidden --activation --weight-init-std --dtype --seed --optimizer "
            "--lr --weight-decay --batch-size --epochs --iterations --sampling --threads --out "
            "--force --quiet",
        ),
        (
            "check",
            "--data --data-dir --hidden --activation --weight-init-std --dtype --seed --images "
            "--threads --quiet",
        ),
        ("predict", "MODEL IMAGE|FILE --invert --no-invert"),
        (
            "bench",
            "--quick --all --only --with --threads --rounds --list --json --plot",
        ),
        ("warmup", "--quiet"),
    ],
)
def test_help_lists_every_option(run, command, options):
    listed = run(command, "--help").out.partition("\n\n")[2]
    for option in options.split():
        assert f"  {option}" in listed or f", {option}" in listed


# -- Wrong commands -------------------------------------------------------------------------------


def test_no_command(refused):
    refused(says="error: the following arguments are required: COMMAND")


def test_unknown_command(refused):
    says = refused("trian", says="argument COMMAND: invalid choice: 'trian'")
    assert all(command in says for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_option(refused, command):
    needed = ("model", "file.npy") if command == "predict" else ()
    refused(command, *needed, "--nonsense", says="unrecognized arguments: --nonsense")


@pytest.mark.parametrize("command", ["train", "check", "info", "warmup"])
def test_surplus_argument(refused, command):
    refused(command, "surplus", says="unrecognized arguments: surplus")


@pytest.mark.parametrize("option", ["--epoch", "--hid", "--opt"])
def test_options_are_not_abbreviated(refused, option):
    # What is short and unique today would not be after the next option.
    refused("train", option, "3", says=f"unrecognized arguments: {option} 3")


@pytest.mark.parametrize(
    "option",
    ["--data", "--hidden", "--lr", "--epochs", "--seed", "--out", "--optimizer", "--threads"],
)
def test_option_without_its_value(refused, option):
    refused("train", option, says=f"argument {option}: expected one argument")


# -- Exit codes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (UsageError("argument --data: what it is"), 2, "error: argument --data: what it is"),
        (CommandFailed("how it failed"), 1, "how it failed"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_exit_code(run, monkeypatch, raised, code, says):
    def load_data(options):
        raise raised

    monkeypatch.setattr(train, "load_data", load_data)
    assert run("train") == (code, "", f"fastbp train: {says}\n")


@pytest.mark.parametrize("error", [UsageError, CommandFailed, OSError])
def test_a_terminal_gets_nothing_to_obey(run, monkeypatch, error):
    def load_data(options):
        raise error("of \x1b[2J\x07\x9b another: é")

    monkeypatch.setattr(train, "load_data", load_data)
    assert run("train").err.endswith("of \\x1b[2J\\x07\\x9b another: é\n")


@pytest.mark.parametrize("value", ["abc", "0", "-1", "1.5", "100000"])
def test_wrong_number_of_threads_in_the_environment(process, value):
    code, out, err = process("train", "--iterations", 1, FASTBP_NUM_THREADS=value)
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "FASTBP_NUM_THREADS" in err


# -- As a program ---------------------------------------------------------------------------------


def test_module(process):
    assert process("--version") == (0, f"fastbp {fastbp.__version__}\n", "")


def test_wrong_use_as_a_program(process):
    code, out, err = process("train", "--hidden", 0)
    assert (code, out) == (2, "")
    assert err == (
        "fastbp train: error: argument --hidden: '0' is not a list of positive integers such as "
        "50 or 100,50\n"
    )


def test_ascii_terminal(process):
    code, out, err = process("train", "--iterations", 1, PYTHONIOENCODING="ascii")
    assert code == 0
    assert "Test accuracy" in out
    assert out.isascii()
    assert "Error" not in err


@pytest.fixture
def closed_pipe():
    """Return the writing end of a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break differently on Windows")
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["info"], ["check", "--hidden", "1"]], ids=" ".join
)
def test_nobody_reads_the_output(start, closed_pipe, arguments, unbuffered):
    program = start(*arguments, stdout=closed_pipe, variables={"PYTHONUNBUFFERED": unbuffered})
    _, err = program.communicate(timeout=60)
    assert (program.returncode, err) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break differently on Windows")
def test_reader_that_leaves_after_the_first_line(start):
    # As `fastbp train | head -1` in a shell.  The training would go on for hours.
    program = start("train", "--iterations", 10**9, stdout=subprocess.PIPE)
    first = program.stdout.readline()
    program.stdout.close()
    err = program.stderr.read()
    assert first.startswith("digits: 1,437 training and 360 test examples")
    assert program.wait(timeout=60) == 0
    assert "Traceback" not in err
    assert "BrokenPipeError" not in err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
@pytest.mark.parametrize(
    "arguments", [["info"], ["train", "--iterations", "1"]], ids=["at the end", "on the way"]
)
def test_disk_full_under_the_output(start, arguments):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        program = start(*arguments, stdout=full)
        _, err = program.communicate(timeout=60)
    assert program.returncode == 1
    assert "No space left on device" in err
    assert "Traceback" not in err
    assert "Exception ignored" not in err


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
@pytest.mark.parametrize("arguments", ["info", "train --iterations 3"])
def test_closed_output(arguments, tmp_path):
    command = f"{shlex.quote(sys.executable)} -m fastbp {arguments} >&-"
    done = subprocess.run(
        ["sh", "-c", command],
        env={**os.environ, "FASTBP_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
