"""The parts of Flower that this room uses, with its telemetry off and its log silent.

Clients use Flower's gRPC API, in which only weights and settings travel. Flower's SuperLink would also send each
client the program to run, with access to the images.
"""

from __future__ import annotations

import logging
import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when flwr is imported
logging.getLogger("alembic").setLevel(logging.WARNING)  # it reports each of its parts

import grpc  # noqa: E402
from flwr.client import NumPyClient, start_client  # noqa: E402
from flwr.common import (  # noqa: E402
    EvaluateRes,
    FitIns,
    FitRes,
    Parameters,
    Scalar,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.server import Server, ServerConfig, SimpleClientManager, start_server  # noqa: E402
from flwr.server.client_proxy import ClientProxy  # noqa: E402
from flwr.server.strategy import FedProx  # noqa: E402

__all__ = [
    "ClientProxy",
    "EvaluateRes",
    "FedProx",
    "FitIns",
    "FitRes",
    "NumPyClient",
    "Parameters",
    "Scalar",
    "Server",
    "ServerConfig",
    "SimpleClientManager",
    "grpc",
    "ndarrays_to_parameters",
    "parameters_to_ndarrays",
    "start_client",
    "start_server",
]

logging.getLogger("flwr").setLevel(logging.CRITICAL)  # it logs a user's mistakes with tracebacks
