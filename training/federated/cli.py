"""`perception federate server|client`: train over several owners of data; images stay with them."""

from __future__ import annotations

import ipaddress
import json
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from perception.cli.options import FLAT, CommandOptions, overlay, parse_options
from perception.errors import UserError
from perception.files import read_json
from perception.lock import alone_in
from training.config import PRESETS, DataConfig, HardwareConfig, TrainConfig
from training.federated.config import FederatedConfig

SERVER_OPTIONS = (
    "preset", "out", "resume", "init", "address", "clients", "rounds", "local-steps", "batch", "learning-rate",
    "seed", "strategy", "proximal-mu", "noise", "clip-change", "certificate", "key", "evaluate-every", "data.crop-hw",
)  # fmt: skip
"""Options that `perception federate server --help` shows."""
CLIENT_OPTIONS = (
    "server", "data.root", "authority", "patience-s", "device", "threads", "data.workers", "data.synthetic-share",
)  # fmt: skip
"""Options that `perception federate client --help` shows."""


@dataclass(frozen=True)
class ServerOptions(CommandOptions):
    """Coordinate a federated run: send the weights, average the clients' answers, write a checkpoint each round."""

    out: Path = Path("runs/federated")
    """Run directory."""
    resume: Path | None = None
    """Run directory to continue. Only --address, --certificate, --key and --clients may change."""
    init: Path | None = None
    """Checkpoint to start from. Default: the preset's pretrained backbone."""
    address: str = "127.0.0.1:8080"
    """Address to listen on. Anything but loopback needs --certificate and --key."""
    certificate: Path | None = None
    """TLS certificate (PEM) for the server's name or address, with its chain."""
    key: Path | None = None
    """Private key of the certificate (PEM)."""
    federated: Annotated[FederatedConfig, FLAT] = field(default_factory=FederatedConfig)
    training: Annotated[TrainConfig, FLAT] = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class ClientOptions(CommandOptions):
    """Take part in a federated run with the drives under --data.root. Only weights leave this machine."""

    server: str = "127.0.0.1:8080"
    """HOST:PORT of perception federate server. Anything but loopback needs --authority."""
    authority: Path | None = None
    """Certificate (PEM) that the server's is checked against: the authority's, or the server's own."""
    patience_s: float = 600.0
    """Time without a server after which the client gives up, seconds."""
    data: DataConfig = field(default_factory=lambda: DataConfig(synthetic_share=0.0))
    hardware: Annotated[HardwareConfig, FLAT] = field(default_factory=HardwareConfig)


def main(argv: list[str]) -> int:
    """Dispatch `server` and `client`."""
    command, rest = (argv[0], argv[1:]) if argv else ("", [])
    if command == "server":
        return _serve(
            parse_options(
                ServerOptions,
                rest,
                "perception federate server",
                everyday=SERVER_OPTIONS,
                begin=_begin,
                early=("preset", "resume"),
            )
        )
    if command == "client":
        return _take_part(parse_options(ClientOptions, rest, "perception federate client", everyday=CLIENT_OPTIONS))
    usage = "usage: perception federate server --out RUN --clients 3\n"
    usage += "       perception federate client --server HOST:PORT --data.root DRIVES"
    if command in ("", "-h", "--help"):
        print(f"{usage}\n\nperception federate server --help explains one of them.")
        return 0
    raise UserError(f"unknown command 'federate {command}'", "server or client", "perception federate --help")


def _begin(given: dict[str, Any]) -> ServerOptions:
    """Return the defaults: those of the preset, or the options of a resumed run."""
    if given["resume"] is not None:
        return _stored(Path(given["resume"]))
    preset = given["preset"] or "nano"
    if preset not in PRESETS:
        raise UserError(f"unknown preset '{preset}'", "one of " + ", ".join(PRESETS), "--preset nano")
    return ServerOptions(training=PRESETS[preset]())


def _stored(run: Path) -> ServerOptions:
    """Return the options that a run was started with."""
    stored = read_json(run / "config.json", "the directory of a federated run", f"--resume {run}")
    try:
        preset = PRESETS[stored["training"]["preset"]]
    except (KeyError, TypeError):
        raise UserError(f"{run}: is not a federated run", "a directory of perception federate server") from None
    begun = overlay(ServerOptions(training=preset()), stored, str(run / "config.json"))
    return replace(begun, out=run, resume=run)


def _serve(options: ServerOptions) -> int:
    """Run the rounds that are missing."""
    certificates = _certificates(options)
    run = options.out
    if options.resume is not None:
        begun = _stored(options.resume)
        same = replace(begun.federated, clients=options.federated.clients)
        if (options.training, options.federated, options.init) != (begun.training, same, begun.init):
            raise UserError(
                f"--resume {run} with other options",
                "those of its start; --address, --certificate, --key and --clients may change",
                f"perception federate server --init {run / 'last.pt'} --out ANOTHER, with the new options",
            )
        run = options.resume
    elif (run / "config.json").exists():
        raise UserError(
            f"{run}: already holds a run", "an empty folder", f"perception federate server --resume {run}, or --out"
        )
    from training.federated.server import open_rounds, serve
    from training.loop import writes_to

    with writes_to(run):
        made = not run.exists()
        run.mkdir(parents=True, exist_ok=True)
        with alone_in(run, "training", made):
            rounds = open_rounds(options.training, options.federated, run, options.resume is not None, options.init)
            if options.resume is None:
                _write_config(options)
            print(
                f"{options.address}: {'TLS' if certificates else 'loopback without TLS'}, "
                f"{rounds.done} of {options.federated.rounds} rounds done, waiting for clients",
                file=sys.stderr,
                flush=True,
            )
            every = round(options.training.checkpoints.evaluate_every / options.federated.local_steps)
            last = serve(rounds, options.address, certificates, max(1, every))
    print(f"done: {last}\nnext: perception export {last}")
    return 0


def _write_config(options: ServerOptions) -> None:
    from training.results import write_json

    stored = {"training": asdict(options.training), "federated": asdict(options.federated)}
    plain = json.loads(json.dumps(stored, default=str))
    write_json(options.out / "config.json", {**plain, "init": str(options.init) if options.init else None})


def _take_part(options: ClientOptions) -> int:
    """Train until the server ends the run."""
    if not options.data.root.is_dir():
        raise UserError(f"{options.data.root}: no such folder", "a folder of data sets", "--data.root FOLDER")
    host = _host(options.server, "--server")
    if options.authority is None and not _is_loopback(host):
        raise UserError(
            f"--server {options.server} without TLS",
            "loopback, or a certificate to check the server's against",
            "--authority ca.pem",
        )
    authority = _read(options.authority, "--authority") if options.authority else None
    from training.federated.client import run_client

    own = TrainConfig(data=options.data, hardware=options.hardware)
    run_client(own, options.server, authority, options.patience_s)
    return 0


def _certificates(options: ServerOptions) -> tuple[bytes, bytes, bytes] | None:
    """Return authority, certificate and key as Flower takes them; None without TLS."""
    host = _host(options.address, "--address")
    if (options.certificate is None) != (options.key is None):
        raise UserError("--certificate without --key, or the reverse", "both, or none", "--certificate C --key K")
    if options.certificate is None or options.key is None:
        if not _is_loopback(host):
            raise UserError(
                f"--address {options.address} without TLS", "loopback, or a certificate", "--certificate C --key K"
            )
        return None
    certificate = _read(options.certificate, "--certificate")
    return certificate, certificate, _read(options.key, "--key")


def _read(path: Path, option: str) -> bytes:
    """Return a PEM file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}", "a PEM file", f"{option} FILE") from None
    if b"-----BEGIN " not in content:
        raise UserError(f"{option} {path}: is not PEM", "a file with -----BEGIN … lines", f"{option} FILE")
    return content


def _host(address: str, option: str) -> str:
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"{option} {address}", "HOST:PORT", f"{option} 127.0.0.1:8080")
    return host.strip("[]")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
