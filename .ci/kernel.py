"""The kernel that the machine of `.ci/vm` runs: got once, kept with what is cut out of it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import lzma
import re
import shutil
import struct
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "vm"
KERNEL = re.compile(r"linux-image-6\.12\.[0-9]+\S*-amd64(-unsigned)?")
OTHERS = ("-cloud-", "-rt-", "-dbg")  # the cloud's has no rdma_rxe and few drivers
A_DAY_S = 86_400.0
SOON_S = 0.5  # who only looks whether it is there is done by then

# What the root needs, then what tests need. A module brings what it depends on by itself; only
# crc32c_generic has to be said, since libcrc32c looks for an algorithm and not for a module.
MODULES = """
crc32c_generic 9pnet_virtio 9p overlay
veth tun tap bridge 8021q vrf macvlan vxlan e1000 e1000e igb virtio_net
sch_netem sch_prio sch_htb sch_tbf sch_ingress sch_red sch_fq sch_fq_codel sch_multiq sch_plug
cls_u32 cls_fw cls_flower cls_matchall cls_basic cls_bpf
act_mirred act_gact act_police act_pedit act_skbedit act_csum
nf_tables nft_compat nft_ct nft_dup_netdev nft_fib_inet nft_fib_netdev nft_fwd_netdev nft_hash
nft_limit nft_log nft_nat nft_masq nft_numgen nft_queue nft_quota nft_reject_inet
nft_reject_netdev nft_connlimit nft_socket
nfnetlink_queue nfnetlink_log nf_conntrack_netlink xt_NFQUEUE xt_u32 xt_mark xt_comment xt_CT
tcp_diag udp_diag inet_diag psample ib_uverbs rdma_ucm rdma_rxe
"""

# The first process. What it says goes to the console; the word `up` tells the caller that a command
# may come, and the command comes as base64, so that it is one line whatever is in it.
INIT = """#!/busybox sh
say() { echo "vm: $*"; }
mkdir -p /proc /sys /dev /lower /over /root
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module.ko" || say "module $module: not loaded"; done \\
    </modules/order
share() { mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$3" "$1" "$2"; }
share host /lower ro,cache=loose || { say "no root: 9p failed"; poweroff -f; }
mount -t tmpfs -o size=75% over /over; mkdir /over/upper /over/work
mount -t overlay -o lowerdir=/lower,upperdir=/over/upper,workdir=/over/work over /root \\
    || { say "no root: overlay failed"; poweroff -f; }
for place in proc sys dev; do mount -o move "/$place" "/root/$place"; done
mount -t tmpfs run /root/run; mkdir -m 755 /root/run/vm
cp /busybox /second /root/run/vm
exec switch_root /root /run/vm/busybox sh /run/vm/second
"""
SECOND = """
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
busybox() { /run/vm/busybox "$@"; }
for port in /sys/class/virtio-ports/*; do
    read -r name <"$port/name"; eval "$name=/dev/${port##*/}"
done
exec 3<>"$control"
IFS= read -r tree <&3; IFS= read -r out <&3
busybox mkdir -p /dev/pts /dev/shm "/run/tmp$tree"
busybox mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
busybox mount -t tmpfs shm /dev/shm
busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
busybox mount -t debugfs debugfs /sys/kernel/debug
case $tree in
    /tmp/*) busybox mkdir -p "/run/tmp/${tree#/tmp/}"
            busybox mount -t tmpfs tmp /run/tmp; busybox mkdir -p "/run/tmp/${tree#/tmp/}"
            busybox mount -o bind "$tree" "/run/tmp/${tree#/tmp/}"
            busybox mount -o rbind /run/tmp /tmp;;
    *) busybox mount -t tmpfs tmp /tmp;;
esac
busybox chmod 1777 /tmp
busybox hostname railbreak
busybox ip link set lo up
[ -z "$out" ] || { busybox mkdir -p /out; busybox mount -t 9p \\
    -o trans=virtio,version=9p2000.L,msize=512000,cache=none out /out; }
echo up >&3
IFS= read -r line <&3
echo "$line" | busybox base64 -d >/run/vm/command
running() { busybox ps -o pid,ppid,stat,args | busybox grep -v ' \\[.*\\]$'; }
(read -r where <&3 && running >/dev/console) &
busybox sh /run/vm/command <"/dev/null" >"$output" 2>&1 3<&-
echo "exit $?" >&3
busybox sleep 60
busybox poweroff -f
"""


class Unavailable(Exception):
    """Something that the machine is made from cannot be had here."""


def made(say: Callable[[str], None], signals: Sequence[int] = ()) -> tuple[Path, Path]:
    """vmlinux and initramfs, made where they are not there yet; by one process at a time."""
    with _alone(say, signals):
        package = next(iter(sorted(CACHE.glob("*.deb"))), None) or downloaded(say)
        busybox = Path(shutil.which("busybox") or "").read_bytes()
        recipe = hashlib.sha256(repr((package.name, MODULES, INIT, SECOND)).encode() + busybox)
        vmlinux = CACHE / f"{package.stem}.vmlinux"
        initramfs = CACHE / f"{recipe.hexdigest()[:12]}.cpio"
        if not vmlinux.exists() or not initramfs.exists():
            say(f"takes what it needs out of {package.name}")
            image, modules = taken(package)
            if not vmlinux.exists():
                whole(vmlinux, cut_out(image))
            for old in CACHE.glob("*.cpio"):
                if time.time() - old.stat().st_mtime > A_DAY_S:  # a younger one may be in use
                    old.unlink()
            whole(initramfs, packed(busybox, modules))
        return vmlinux, initramfs


@contextlib.contextmanager
def _alone(say: Callable[[str], None], signals: Sequence[int]) -> Iterator[None]:
    """Nobody else is in here meanwhile; what killed ones left half done is removed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("a") as lock:
        said, began = False, time.monotonic()
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if signals:
                raise Unavailable("stopped while another process makes the kernel")
            if not said and time.monotonic() - began > SOON_S:
                say("waits for another process that makes the kernel")
                said = True
            time.sleep(0.1)
        for left in CACHE.glob("*.part*"):
            left.unlink()
        for left in CACHE.glob("download-*"):
            shutil.rmtree(left)
        yield


def downloaded(say: Callable[[str], None]) -> Path:
    """The newest kernel package that apt knows of."""
    for program in ("apt-cache", "apt-get", "dpkg-deb", "zstd"):
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is not installed, which a kernel of Debian is got with")
    known = asked("apt-cache", "search", "--names-only", r"^linux-image-6\.12")
    names = [line.split()[0] for line in known.splitlines() if line.strip()]
    fit = [n for n in names if KERNEL.fullmatch(n) and not any(o in n for o in OTHERS)]
    if not fit:
        raise Unavailable(
            "apt knows no linux-image-6.12*-amd64 (Debian 12 has it in its security archive,"
            " Debian 13 as its kernel; `apt-get update` where the lists are empty)"
        )
    numbers = re.compile(r"\d+")
    name = max(fit, key=lambda n: ([int(d) for d in numbers.findall(n)], "unsigned" not in n))
    say(f"downloads {name} (107 MB)")
    folder = CACHE / "download-now"
    folder.mkdir()
    try:
        words = ("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name)
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        got = next(folder.glob("*.deb"), None)
        if got is None:
            raise Unavailable(f"{name} cannot be downloaded: {last_line(done.stderr)}")
        return got.rename(CACHE / got.name)
    finally:
        shutil.rmtree(folder)


def taken(package: Path) -> tuple[bytes, dict[str, bytes]]:
    """The kernel image of a package and its modules by name, still packed."""
    image, modules = b"", {}
    argv = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with (
        subprocess.Popen(argv, stdout=subprocess.PIPE) as reader,
        tarfile.open(fileobj=reader.stdout, mode="r|") as tar,
    ):
        for member in tar:
            name, dot, _ = member.name.rpartition("/")[2].partition(".ko")
            if "/boot/vmlinuz-" in member.name:
                image = read_member(tar, member)
            elif dot and member.isfile():
                modules[name.replace("-", "_")] = read_member(tar, member)
    if not image or "rdma_rxe" not in modules:
        raise Unavailable(f"{package.name} holds no kernel with rdma_rxe: a cloud's, perhaps")
    return image, modules


def read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""


def cut_out(image: bytes) -> bytes:
    """The uncompressed kernel, which QEMU starts three seconds sooner than the packed one.

    Documentation/arch/x86/boot.rst: setup_sects at 0x1f1, payload_offset and payload_length at
    0x248; the payload ends with its size.
    """
    start = (image[0x1F1] + 1) * 512 + struct.unpack_from("<I", image, 0x248)[0]
    payload = image[start : start + struct.unpack_from("<I", image, 0x24C)[0]]
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        words = ("zstd", "-dcq")
        return subprocess.run(words, input=payload[:-4], stdout=-1, check=True).stdout
    return lzma.decompress(payload[:-4])


def packed(busybox: bytes, modules: dict[str, bytes]) -> bytes:
    """The initramfs: a static shell, and modules in the order in which they are put in."""
    unpacked: dict[str, bytes] = {}

    def need(name: str) -> None:
        if name in unpacked or name not in modules:  # not there: built into the kernel
            return
        code = modules[name]
        code = lzma.decompress(code) if code.startswith(b"\xfd7zXZ") else code
        found = re.search(rb"\0depends=([^\0]*)\0", code)
        for other in (found[1].decode() if found else "").split(","):
            need(other.replace("-", "_"))
        unpacked[name] = code

    for name in MODULES.split():
        need(name)
    files = {"busybox": busybox, "init": INIT.encode(), "second": SECOND.encode()}
    files |= {f"modules/{name}.ko": code for name, code in unpacked.items()}
    files["modules/order"] = "".join(f"{name}\n" for name in unpacked).encode()
    links = ("sh", "mkdir", "mount", "insmod", "cp", "switch_root", "poweroff")
    return cpio(files, {f"bin/{name}": "/busybox" for name in links})


def cpio(files: dict[str, bytes], links: dict[str, str]) -> bytes:
    """An archive in the format "newc" (Documentation/driver-api/early-userspace/buffer-format)."""
    out = io.BytesIO()
    entries = [("modules", 0o40755, b""), ("bin", 0o40755, b"")]
    entries += [(name, 0o100755, data) for name, data in files.items()]
    entries += [(name, 0o120777, target.encode()) for name, target in links.items()]
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + path)
        out.write(bytes(-out.tell() % 4) + data)
        out.write(bytes(-out.tell() % 4))
    return out.getvalue()


def whole(path: Path, data: bytes) -> None:
    """A file that is there whole or not at all."""
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.replace(path)


def asked(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def last_line(text: str) -> str:
    return next(iter(reversed(text.strip().splitlines())), "apt said nothing")
