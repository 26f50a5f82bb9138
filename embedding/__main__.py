"""The command line: `python -m embedding COMMAND`.

Each command imports what it needs when it runs, so that `--help` answers at once. A fault that the user
can mend ends in one line on stderr and exit status 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedding.errors import StartupError
from embedding.installed import require_worker


if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130  # what a shell reports after Ctrl-C
PREPARE = """\
Load a model by open_clip, which downloads its weights where they are not on this machine, and write all that
a worker needs into one new folder: open_clip_config.json, open_clip_model.safetensors, golden.json, and the
tokenizer's files where the model has its own. The worker serves it with MODEL_PATH=DIR, or as NAME--TAG below
one of MODEL_ROOTS."""
GOLDEN = """\
Write DIR/golden.json: the vectors that open_clip itself, in fp32, gives a known picture and two texts with
the weights in DIR. A worker compares its own with them before it takes jobs. `prepare` writes it too; this is
for a folder that came from elsewhere, or whose weights changed."""

DOWNLOAD = """\
Fetch a model from the Hugging Face Hub and prepare it, below DIR, as NAME--TAG, where a worker with DIR among
its MODEL_ROOTS serves it without a network. A folder that is there is checked and left as it is. What came
before a download was cut off is kept in DIR/.download, and the next goes on from there; files are compared
with the hub's checksums. Several workers may do this on one volume: one works, the others wait. HF_TOKEN
opens gated models."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that *arguments* name; return the exit status."""
    options = argparse.Namespace()
    try:
        _parser().parse_args(arguments, options)
        return int(options.run(options) or 0)
    except StartupError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted{getattr(options, 'kept', '')}", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m embedding", description="CLIP embeddings for images and texts"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_prepare(commands)
    _add_golden(commands)
    _add_download(commands)
    _add_sign(commands)
    _add_serve(commands)
    _add_embed(commands)
    _add_search(commands)
    return parser


def _add_prepare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "prepare",
        help="make a folder of weights that starts fast",
        description=PREPARE,
    )
    command.add_argument(
        "--model",
        required=True,
        metavar="NAME",
        help="an architecture of open_clip, ViT-B-32 say, or hf-hub:org/name for a model on huggingface.co",
    )
    command.add_argument(
        "--pretrained",
        default="",
        metavar="TAG",
        help="which weights of NAME: a tag of open_clip, openai say (for hf-hub: none); "
        "'random' makes some up, for tests and benchmarks",
    )
    command.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="DIR",
        help="the folder to make; one that holds just this already is left as it is, any other is refused",
    )
    command.add_argument(
        "--precision",
        choices=["fp16", "fp32"],
        default="fp16",
        help="how the weights are stored (fp16, half the size); what they are served in is CLIP_PRECISION",
    )
    command.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="a checkpoint on this machine, in any format that open_clip reads, instead of a download; "
        "TAG then only says how it was trained",
    )
    command.set_defaults(run=_prepare, kept="; DIR is whole or was not made: run the same command again")


def _prepare(options: argparse.Namespace) -> None:
    require_worker("prepare")
    from embedding.model.prepare import prepare  # noqa: PLC0415  (imports open_clip)

    prepare(
        options.model, options.pretrained, options.out, precision=options.precision, weights=options.weights
    )


def _add_golden(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "golden",
        help="write golden.json for a folder in open_clip's hub format",
        description=GOLDEN,
    )
    command.add_argument(
        "folder",
        type=Path,
        metavar="DIR",
        help="holds open_clip_config.json and the weights; the only file written or replaced is golden.json",
    )
    command.set_defaults(run=_golden, kept="; golden.json is as it was")


def _golden(options: argparse.Namespace) -> None:
    require_worker("golden")
    if not options.folder.is_dir():
        raise StartupError(f"DIR must be a folder that holds the weights, and {options.folder} is none")
    from embedding.model.golden import write_golden  # noqa: PLC0415  (imports torch)

    write_golden(options.folder)
    print(f"golden vectors written into {options.folder}")


def _add_download(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("download", help="put a model onto a volume", description=DOWNLOAD)
    command.add_argument(
        "--model", required=True, metavar="NAME", help="as open_clip names it, or hf-hub:organisation/name"
    )
    command.add_argument("--pretrained", default="", metavar="TAG", help="which weights; for hf-hub: none")
    command.add_argument(
        "--root", type=Path, metavar="DIR", help="the folder to put it into (the last of MODEL_ROOTS)"
    )
    command.add_argument("--json", action="store_true", help="tell how far it is, one JSON object a line")
    command.set_defaults(
        run=_download, kept="; what came is kept: run the same command again, and it goes on from there"
    )


def _download(options: argparse.Namespace) -> int:
    require_worker("download")
    from embedding.operator.command import run  # noqa: PLC0415  (imports huggingface_hub)
    from embedding.settings import Settings  # noqa: PLC0415

    root = options.root or Path(Settings.from_env().model_roots[-1])
    return run(options.model, options.pretrained, root, as_json=options.json)


def _add_sign(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "sign",
        help="sign a job with the secret in EMBEDDING_HMAC_SECRET",
        description="Print the job with a signature (v3) that covers all of its input, for one job. "
        "The secret is read from EMBEDDING_HMAC_SECRET: a secret, or kid:secret; of several the last signs.",
    )
    command.add_argument("job", metavar="FILE", help='a file that holds {"input": {...}}; - reads stdin')
    command.add_argument(
        "--lifetime-s",
        type=int,
        default=3600,
        metavar="SECONDS",
        help="how long it is good for, the wait in the queue included: 1 to 3600 (3600)",
    )
    command.add_argument(
        "--body", action="store_true", help="print the signed input alone, the body of an HTTP request"
    )
    command.set_defaults(run=_sign)


def _sign(options: argparse.Namespace) -> None:
    from embedding.contract.jobs import read_job, signed_job  # noqa: PLC0415
    from embedding.contract.keys import Keyring  # noqa: PLC0415
    from embedding.settings import Settings  # noqa: PLC0415

    secret = Settings.from_env().hmac_secret
    if secret is None:
        raise StartupError("EMBEDDING_HMAC_SECRET is not set: give the worker's secret, or your kid:secret")
    try:
        key = Keyring.parse(secret.get_secret_value()).newest
    except ValueError as fault:
        raise StartupError(str(fault)) from None
    source = "stdin" if options.job == "-" else options.job
    job = read_job(_text_of(options.job), source=source)
    signed = signed_job(job, key, lifetime_s=options.lifetime_s, source=source)
    print(json.dumps(_body_of(signed["input"]) if options.body else signed, indent=2))


def _body_of(job_input: dict[str, Any]) -> dict[str, Any]:
    """Return the body of the HTTP request that *job_input* is; OpenAI's form carries its `auth` inside."""
    if "openai_route" not in job_input:
        return job_input
    return {**job_input["openai_input"], "auth": job_input["auth"]}


def _text_of(name: str) -> str:
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return content.decode()
    except (OSError, UnicodeDecodeError) as fault:
        raise StartupError(f"{name} cannot be read: {fault}") from None


def _add_embed(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from embedding.client.bulk import command  # noqa: PLC0415  numpy

    command.add_to(commands)


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "serve",
        help="serve the model over HTTP",
        description="Serve over HTTP until stopped. The environment says what and to whom: CLIP_MODEL_NAME "
        "and CLIP_PRETRAINED, or MODEL_PATH; EMBEDDING_HMAC_SECRET for signed requests, WORKER_TOKEN for "
        "bearer tokens. To try it on your own machine: --demo --host 127.0.0.1, which needs none of them.",
    )
    command.add_argument("--host", help="the address to listen on (HOST, else 0.0.0.0: all of them)")
    command.add_argument("--port", type=int, help="(PORT, else 8000); 0 takes any that is free")
    command.add_argument(
        "--demo", action="store_true", help="serve the embedded demo model to whoever can reach the port"
    )
    command.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    require_worker("serve")
    from embedding.serve.start import start  # noqa: PLC0415
    from embedding.settings import Settings  # noqa: PLC0415

    given = {"WORKER_MODE": "http", "HOST": options.host, "PORT": options.port}
    if options.demo:
        given |= {"ALLOW_DEMO_MODEL": "1", "ALLOW_INSECURE_AUTH": "1"}
        given |= dict.fromkeys(("MODEL_PATH", "CLIP_MODEL_NAME", "CLIP_PRETRAINED"), "")
    overrides = {name: str(value) for name, value in given.items() if value is not None}
    return start(lambda: Settings.from_env(overrides=overrides), ()).run()


def _add_search(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from embedding.client.search import command  # noqa: PLC0415  numpy and httpx

    command.add_to(commands)


if __name__ == "__main__":
    sys.exit(main())
