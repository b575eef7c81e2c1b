"""A training job's collectives, run for real across the fabric: what it feels, who notices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

from chaos.errors import CapabilityError, SpecError
from chaos.fabric import Fabric, Stream
from chaos.registry import Program, probe
from chaos.timeline import Measure, Readings, Windows
from chaos.units import Duration, Size
from probes.collective_measures import SCHEMA, measure
from probes.collective_reading import read, streams

MISSING = "collective needs torch: pip install railbreak[job]"
SIZE, TIMEOUT = Size(1 << 20), Duration(60_000_000_000)
LARGEST = Size(1 << 30)


def available() -> None:
    """Return when a job can run here.

    Raises:
        CapabilityError: torch is not installed.
    """
    if find_spec("torch") is None:
        raise CapabilityError(MISSING)


@probe("collective")
@dataclass(frozen=True, slots=True)
class Collective:
    """Run one collective over and over on several hosts, and check every value that comes out.

    One iteration is one operation of torch.distributed on fresh values; the job's progress, not a
    ping, says whether the fabric works. Detectors beside it: `job_stall` (no completed iteration),
    `op_age` (the operation in flight is too old), `heartbeat` (a UDP mesh between the ranks, from
    four source ports), `tcp_retransmit` (the job's own connections), `job_error` (the library's
    error, or a rank that ended). All limits are learned in calm and frozen before the fault.

    Args:
        hosts: Nodes that run ranks; empty for every node of role `host`.
        op: The operation. `broadcast` changes its root every iteration.
        size: The whole message, S of nccl-tests.
        mode: `ride`: wait for the transport; an error ends the job. `regroup`: give up the group at
            the first sure symptom and go on with the ranks that hear each other. `restart`: give it
            up likewise, and go on when every rank is there and heard: one that ended must be
            started again, as `rank_restart` has it done.
        backend: `gloo` on any machine, `nccl` where each rank has a GPU.
        interface: The hosts' interface that carries the job.
        timeout: Of the process group; the library itself notices nothing earlier.
        check: `sampled`: some values of every iteration, all values of every 50th and of every one
            from the fault to the recovery. `full`: all values always.
        ranks_per_host: Ranks on each host.

    Needs: torch (the extra `railbreak[job]`), and an address on `interface` of every host.

    Examples:
        >>> job = Collective(("host1", "host2"), op="all_gather", size=Size.parse("4 MiB"))
        >>> job.mode, str(job.size), str(job.timeout)
        ('ride', '4 MiB', '60 s')
    """

    name: ClassVar[str] = "collective"
    schema: ClassVar[Mapping[str, str]] = SCHEMA
    detectors: ClassVar[tuple[str, ...]] = (
        "job_stall", "job_error", "heartbeat", "op_age", "tcp_retransmit",
    )  # fmt: skip

    hosts: tuple[str, ...] = ()
    op: Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"] = (
        "all_reduce"
    )
    size: Size = SIZE
    mode: Literal["ride", "regroup", "restart"] = "ride"
    backend: Literal["gloo", "nccl"] = "gloo"
    interface: str = "eth1"
    timeout: Duration = TIMEOUT
    check: Literal["sampled", "full"] = "sampled"
    ranks_per_host: int = 1

    def __post_init__(self) -> None:
        twice = sorted({host for host in self.hosts if self.hosts.count(host) > 1})
        if twice:
            raise SpecError(
                f"{', '.join(twice)} given twice; use ranks_per_host for more ranks on a host",
                field="hosts",
            )
        if self.hosts and len(self.hosts) * self.ranks_per_host < 2:
            raise SpecError(f"a job needs two ranks, got {len(self.hosts)} host", field="hosts")
        if not 1 <= self.ranks_per_host <= 16:
            raise SpecError(
                f"ranks_per_host must be 1 to 16, got {self.ranks_per_host}", field="ranks_per_host"
            )
        if not 1024 <= self.size.bytes <= LARGEST.bytes:
            raise SpecError(f"size must be 1 KiB to {LARGEST}, got {self.size}", field="size")
        if self.timeout.ns < 1_000_000_000:
            raise SpecError(f"timeout must be at least 1 s, got {self.timeout}", field="timeout")

    @staticmethod
    def available() -> None:
        """Return when a job can run here.

        Raises:
            CapabilityError: torch is not installed.
        """
        available()

    def nodes(self, fabric: Fabric) -> tuple[str, ...]:
        """Nodes that run ranks, in the order of their ranks.

        Raises:
            SpecError: an unknown host, or fewer than two ranks.
        """
        names = self.hosts or tuple(node.name for node in fabric.with_role("host"))
        for name in names:
            fabric.node(name)
        if len(names) * self.ranks_per_host < 2:
            raise SpecError(
                f"a job needs two ranks; fabric {fabric.name} has {len(names)} nodes of role host",
                field="hosts",
            )
        return names

    def programs(self, fabric: Fabric, addresses: Mapping[str, str]) -> tuple[Program, ...]:
        """One coordinator on the machine itself; it starts the ranks in their hosts."""
        places = [(node, k) for node in self.nodes(fabric) for k in range(self.ranks_per_host)]
        config = {
            "op": self.op,
            "bytes": self.size.bytes,
            "mode": self.mode,
            "backend": self.backend,
            "interface": self.interface,
            "timeout_s": self.timeout.s,
            "check": self.check,
            "heartbeat_ms": max(10.0, round(10 * (len(places) - 1) / 7, 1)),
            "heartbeat_sources": 4,
            "corrupt_rank": -1,
            "corrupt_at": 0,
            "corrupt_index": 0,
            "ranks": [
                {"rank": rank, "node": node, "local_rank": k}
                for rank, (node, k) in enumerate(places)
            ],
        }
        return (Program("coordinator", "probes.jobs.collective", config, span="calls"),)

    def streams(
        self, addresses: Mapping[str, str], records: Mapping[str, list[dict[str, Any]]]
    ) -> tuple[Stream, ...]:
        """The job's TCP connections that carry bytes now, by bytes sent, largest first."""
        return streams(records.get("coordinator", []), addresses)

    def read(self, records: Mapping[str, list[dict[str, Any]]]) -> Readings:
        """Records of the ranks and the coordinator -> events, goodput, stalls, fate."""
        return read(records.get("coordinator", []), self.interface)

    def measures(self, readings: Readings, windows: Windows) -> tuple[Measure, ...]:
        """Stall, recovery, bandwidth, values of this trial; see `schema`."""
        return measure(readings, windows)

    @staticmethod
    def live(record: Mapping[str, Any]) -> Mapping[str, float] | None:
        """Bytes of the collective per second, over one batch of a rank's iterations."""
        if record["ev"] != "it" or not record["t1"]:
            return None
        took_ns = record["t1"][-1] - record["t0"][0]
        return {f"rank{record['rank']} MB/s": record["bytes"] * len(record["t1"]) * 1e3 / took_ns}

    @staticmethod
    def notice(record: Mapping[str, Any]) -> str | None:
        """A stall, a silent peer, an error, the end of a job."""
        who = f"rank{record.get('rank')}"
        if record["ev"] == "stall":
            return f"{who} has completed nothing for {record['age_ms']:.0f} ms"
        if record["ev"] == "net" and record.get("kind") == "hb_lost":
            return f"{who} hears nothing of rank{record['peer']}"
        if record["ev"] == "error":
            return f"{who} {record['cls']}: {record['msg'][:100]}"
        return str(record["msg"]) if record["ev"] == "fate" and "msg" in record else None
