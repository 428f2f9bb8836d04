"""EC2 instances of moto as machines that can be logged in to.

moto answers EC2's calls, but its instances are entries in a table. Here each one that is started gets namespaces of its
own (network, processes, mounts, host name), its private and public address on a bridge, a home directory, and an sshd
that knows the instance's key pair; each one that is terminated is killed, whatever it runs. The link-local metadata
service gives a machine the credentials of its instance profile, and nothing to a machine without one. User data are
run at the start; a machine that shuts itself down is terminated if it was started with that wish, and else stopped.

Everything happens inside namespaces of the caller's (see `drill.py`), so that nothing here can reach, or outlive, the
machine it runs on. Only the files of the real machine are shared: Python and uv's cache.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import boto3

from tests.cluster import systemd

GATEWAY = "172.31.255.254"  # in EC2's default network, beyond the default subnets
METADATA = "169.254.169.254"
HOME = "/run/ubuntu"
BOOT = """
set -e
mount --make-rprivate /
hostname "$HOST_NAME"
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd "$HOME_OF_NODE" /run/over
# what is installed on it, the real machine does not see
for place in etc usr/local/lib; do
    mkdir -p "/run/over/$place/new" "/run/over/$place/work"
    over="lowerdir=/$place,upperdir=/run/over/$place/new,workdir=/run/over/$place/work"
    mount -t overlay overlay -o "$over" "/$place"
done
mkdir -p /etc/systemd/system
mount --bind "$NODE/home" "$HOME_OF_NODE"
mount --bind "$NODE/etc/passwd" /etc/passwd
mount --bind "$NODE/etc/resolv.conf" /etc/resolv.conf
mount --bind "$NODE/etc/hosts" /etc/hosts
mount -t tmpfs -o size=8g tmpfs /dev/shm
while ! ip link show eth0 > /dev/null 2>&1; do sleep 0.05; done
ip link set lo up
ip address add "$PRIVATE/16" dev eth0
ip address add "$PUBLIC/32" dev eth0
ip link set eth0 up
ip route add default via "$GATEWAY" src "$PRIVATE"
mount --bind "$NODE/tmp" /tmp
[ ! -e "$NODE/user-data" ] || "$NODE/user-data"
exec /usr/sbin/sshd -D -f "$SSHD_CONFIG" -E /tmp/sshd.log
"""


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def make_network() -> None:
    """A bridge with the addresses of what is AWS's own: GATEWAY, where moto can listen, and the metadata service."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "br0", "type", "bridge")
    run("ip", "address", "add", f"{GATEWAY}/16", "dev", "br0")
    run("ip", "address", "add", f"{METADATA}/32", "dev", "br0")
    run("ip", "link", "set", "br0", "up")


class Machines:
    """Watches the instances of a moto server and keeps a machine for each that is pending or running."""

    def __init__(self, folder: Path, endpoint: str, region: str, bashrc: str, cache: Path, wheels: Path) -> None:
        self.folder, self.bashrc, self.cache = folder, bashrc, cache
        self.commands = folder / "commands"
        systemd.install(self.commands, wheels)
        self.ec2 = boto3.client("ec2", region_name=region, endpoint_url=endpoint)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.own: set[str] = set()
        self.instances: dict[str, dict[str, Any]] = {}
        self.history: list[tuple[float, str, str]] = []
        """When which instance, by its node type, was started or ended."""
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host_key"))
        (folder / "sshd_config").write_text(
            f"HostKey {folder}/host_key\nPermitRootLogin yes\nPasswordAuthentication no\nStrictModes no\n"
            "UsePAM no\nUseDNS no\nAuthorizedKeysFile .ssh/authorized_keys\nMaxStartups 100\nMaxSessions 100\n"
        )
        self._serve_metadata()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.stopped.set()
        self.thread.join()
        for instance in list(self.running):
            self._end(instance)

    def cut_off(self, name: str) -> None:
        """Take a machine's link away; it goes on by itself."""
        run("ip", "link", "set", f"v{self.running[name].pid}", "down")

    def restore(self, name: str) -> None:
        """Give it back."""
        run("ip", "link", "set", f"v{self.running[name].pid}", "up")

    def by_type(self) -> dict[str, int]:
        """How many machines of each node type there are."""
        counts: dict[str, int] = {}
        for instance in set(self.running) - self.own:
            kind = _node_type(self.instances[instance])
            counts[kind] = counts.get(kind, 0) + 1
        return counts

    def _watch(self) -> None:
        while not self.stopped.is_set():
            for name in set(self.running) - self.own:
                if (self.folder / name / "tmp" / systemd.ASKED).exists():
                    self._shut_down(name)
            wanted = {}
            for reservation in self.ec2.describe_instances()["Reservations"]:
                for instance in reservation["Instances"]:
                    if instance["State"]["Name"] in ("pending", "running"):
                        wanted[instance["InstanceId"]] = instance
            for name in set(self.running) - set(wanted) - self.own:
                self._end(name)
            for name in set(wanted) - set(self.running):
                self._start(wanted[name])
            self.instances.update(wanted)
            self.stopped.wait(0.5)

    def _shut_down(self, name: str) -> None:
        """As EC2 takes a shutdown from within."""
        wish = self.ec2.describe_instance_attribute(InstanceId=name, Attribute="instanceInitiatedShutdownBehavior")
        terminate = wish["InstanceInitiatedShutdownBehavior"].get("Value") == "terminate"
        (self.ec2.terminate_instances if terminate else self.ec2.stop_instances)(InstanceIds=[name])
        self.history.append((time.monotonic(), _node_type(self.instances[name]), "shut itself down"))

    def add(self, name: str, address: str, public_key: str) -> None:
        """A machine that is not EC2's."""
        self.own.add(name)
        self._boot(name, address, "192.0.2." + address.rsplit(".", 1)[-1], public_key)

    def _start(self, instance: dict[str, Any]) -> None:
        name = instance["InstanceId"]
        self.instances[name] = instance
        pairs = self.ec2.describe_key_pairs(KeyNames=[instance["KeyName"]], IncludePublicKey=True)["KeyPairs"]
        data = self.ec2.describe_instance_attribute(InstanceId=name, Attribute="userData")["UserData"].get("Value", "")
        key = pairs[0]["PublicKey"]
        self._boot(name, instance["PrivateIpAddress"], instance["PublicIpAddress"], key, base64.b64decode(data))
        self.history.append((time.monotonic(), _node_type(instance), "started"))

    def _boot(self, name: str, private: str, public: str, public_key: str, user_data: bytes = b"") -> None:
        node = self.folder / name
        for part in ("home/.ssh", "home/.cache", "etc", "tmp"):
            (node / part).mkdir(parents=True)
        (node / "tmp").chmod(0o1777)
        (node / "home" / ".bashrc").write_text(f'{self.bashrc}\nexport PATH="{self.commands}:$PATH"\n')
        if user_data:
            (node / "user-data").write_bytes(user_data)
            (node / "user-data").chmod(0o755)
        # hard links: an installation from a cache on the same mount copies nothing
        run("cp", "-al", str(self.cache), str(node / "home" / ".cache" / "uv"))
        (node / "home" / ".ssh" / "authorized_keys").write_text(public_key + "\n")
        host = "ip-" + private.replace(".", "-")
        (node / "etc" / "hosts").write_text(f"127.0.0.1 localhost\n{private} {host}\n")
        (node / "etc" / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        # root by another name, and the first of that number, so that ~ is its home
        accounts = Path("/etc/passwd").read_text()
        (node / "etc" / "passwd").write_text(f"ubuntu:*:0:0::{HOME}:/bin/bash\n{accounts}")
        environment = {
            "PATH": f"{self.commands}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "NODE": str(node),
            "HOME_OF_NODE": HOME,
            "HOST_NAME": host,
            "PRIVATE": private,
            "PUBLIC": public,
            "GATEWAY": GATEWAY,
            "SSHD_CONFIG": str(self.folder / "sshd_config"),
        }
        namespaces = ["--net", "--pid", "--mount", "--uts", "--fork", "--kill-child", "--mount-proc"]
        process = subprocess.Popen(
            ["unshare", *namespaces, "bash", "-c", BOOT],
            env=environment,
            stdout=(node / "boot.log").open("wb"),
            stderr=subprocess.STDOUT,
        )
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{process.pid}/ns/net") == own:
            time.sleep(0.02)
        link = f"v{process.pid}"
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(process.pid))
        run("ip", "link", "set", link, "master", "br0", "up")
        run("ip", "route", "replace", f"{public}/32", "dev", "br0")
        self.running[name] = process

    def _end(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()  # and by --kill-child the first process of the namespace, and with it all others
        process.wait()
        if name not in self.own:
            self.history.append((time.monotonic(), _node_type(self.instances[name]), "ended"))
            with contextlib.suppress(subprocess.CalledProcessError):
                run("ip", "route", "del", f"{self.instances[name]['PublicIpAddress']}/32")

    def _serve_metadata(self) -> None:
        machines = self

        class Metadata(http.server.BaseHTTPRequestHandler):
            def answer(self, body: str | None) -> None:
                content = (body or "").encode()
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_PUT(self) -> None:
                self.answer("token" if self.path == "/latest/api/token" else None)

            def do_GET(self) -> None:
                caller = self.client_address[0]
                callers = [one for one in machines.instances.values() if one.get("PrivateIpAddress") == caller]
                arn = callers[-1].get("IamInstanceProfile", {}).get("Arn", "") if callers else ""
                role = arn.rsplit("/", 1)[-1]
                folder = "/latest/meta-data/iam/security-credentials/"
                if role and self.path.rstrip("/") == folder.rstrip("/"):
                    self.answer(role)
                elif role and self.path == folder + role:
                    self.answer(
                        json.dumps(
                            {
                                "Code": "Success",
                                "Type": "AWS-HMAC",
                                "AccessKeyId": f"of-{role}",
                                "SecretAccessKey": "drill",
                                "Token": "drill",
                                "LastUpdated": "2020-01-01T00:00:00Z",
                                "Expiration": "2099-01-01T00:00:00Z",
                            }
                        )
                    )
                else:
                    self.answer(None)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer((METADATA, 80), Metadata)
        threading.Thread(target=server.serve_forever, daemon=True).start()


def _node_type(instance: dict[str, Any]) -> str:
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
    kind = tags.get("ray-user-node-type", "unknown")
    if kind == "head":
        return kind
    return f"{instance['InstanceType']} {'on spot' if instance.get('InstanceLifecycle') == 'spot' else 'on demand'}"
