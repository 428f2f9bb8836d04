"""`cluster.yaml` from `ray up` to `ray down` as a user goes through it, on machines whose AWS is emulated.

Run by `test_ray_up.py` as the first process of namespaces of its own; writes what it saw to <folder>/seen.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import yaml

from tests.cluster.checks import own_machines
from tests.cluster.machines import GATEWAY, HOME, Machines, make_network, run
from tests.cluster.permissions import POLICIES, statements

ROOT = Path(__file__).resolve().parents[2]
REGION = "us-east-1"
ENDPOINT = f"http://{GATEWAY}:5000"
ACCOUNT = "123456789012"  # moto's
BUCKET = "drill"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
# ten trials of some seconds: the baseline and two variants at two strengths, two seeds each
TRIALS = ["--alpha", "1", "10", "--seeds", "2", "--train-images", "600", "--epochs", "100", "--width", "8"]
# the second worker has to come on demand
STOCK = {"g6.xlarge spot": 1, "g5.xlarge spot": 0}
DASHBOARD = "http://127.0.0.1:8265"
# instead of fifteen minutes: a worker that is not set up, and one that does not reach its head
SET_UP_SECONDS, SILENT_SECONDS = 45, 60


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def wait_for(condition: Callable[[], bool], what: str, seconds: float) -> float:
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise TimeoutError(f"{what} did not happen in {seconds:.0f} s")
        time.sleep(0.5)
    return time.monotonic() - started


def account(folder: Path) -> dict[str, str]:
    """What sweeps/README.md has an administrator make once: bucket, roles, security group; and an image's id.

    The policies are held by moto's server from its start (`aws.py`), not by moto's IAM, which knows no conditions.
    """
    boto3.client("s3", endpoint_url=ENDPOINT).create_bucket(Bucket=BUCKET)
    iam = boto3.client("iam", endpoint_url=ENDPOINT)
    for name in ("sweeps-head", "sweeps-worker"):
        trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    ec2 = boto3.client("ec2", endpoint_url=ENDPOINT)
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="sweeps", Description="sweeps", VpcId=vpc)["GroupId"]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": f"{GATEWAY}/32"}]}
    within = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[ssh, within])
    image = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"][0]["ImageId"]
    return {"group": group, "image": image}


def write_cluster_file(path: Path, made: dict[str, str], workers: int) -> None:
    """cluster.yaml with nothing changed but what its head says a user has to change."""
    text = (ROOT / "cluster.yaml").read_text()
    for pattern, value in {
        "ami-CHANGE-ME": made["image"],
        "sg-CHANGE-ME": made["group"],
        r"(?m)^max_workers: \d+$": f"max_workers: {workers}",
        r"(?m)^idle_timeout_minutes: \d+$": "idle_timeout_minutes: 0.25",
        "--on-active=15min ": f"--on-active={SET_UP_SECONDS}s ",
        r"(?m):6379 15$": f":6379 {SILENT_SECONDS / 60:g}",
    }.items():
        text, times = re.subn(pattern, value, text)
        assert times == 1, pattern
    path.write_text(text)


@contextlib.contextmanager
def process(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def states(kind: str = "") -> dict[str, str]:
    found = {}
    for reservation in boto3.client("ec2", endpoint_url=ENDPOINT).describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
            if not kind or tags.get("ray-node-type") == kind:
                found[instance["InstanceId"]] = instance["State"]["Name"]
    return found


def may(group: str) -> dict[str, list[dict[str, Any]]]:
    """Whom moto's server holds to which statements, by access key."""
    values = {
        "REGION": REGION,
        "ACCOUNT": ACCOUNT,
        "BUCKET": BUCKET,
        "PREFIX": "results",
        "CLUSTER": "sweeps",
        "GROUP": group,
    }
    return {
        who if who == "user" else f"of-{who}": [one for name in names for one in statements(name, values)]
        for who, names in POLICIES.items()
    }


def drill(folder: Path, cache: Path) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    tools = Path(sys.executable).parent
    home = folder / "user"
    home.mkdir()
    (folder / "tmp").mkdir()
    credentials = {
        "AWS_ENDPOINT_URL": ENDPOINT,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_SECRET_ACCESS_KEY": "drill",
    }
    os.environ.update({**credentials, "AWS_ACCESS_KEY_ID": "administrator"})
    environment = {
        "HOME": str(home),
        "PATH": f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin",
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TERM": "dumb",
        "LANG": "C.UTF-8",
        "TMPDIR": str(folder / "tmp"),  # Ray remembers there what AWS has
        **credentials,
        "AWS_ACCESS_KEY_ID": "user",
    }

    def ray(*arguments: str, name: str, seconds: float = 300, older_autoscaler: bool = False) -> str:
        log = folder / f"{name}.log"
        started = time.monotonic()
        with log.open("wb") as out:
            done = subprocess.run(
                [str(tools / "ray"), *arguments],
                cwd=ROOT,
                env={**environment, "RAY_UP_enable_autoscaler_v2": "0"} if older_autoscaler else environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            )
        took = time.monotonic() - started
        say(f"ray {' '.join(arguments)[:100]}: exit code {done.returncode}, {took:.0f} s")
        seen[f"{name}_seconds"] = round(took, 1)
        text = log.read_text(errors="replace")
        if done.returncode:
            raise RuntimeError(f"ray {arguments[0]} failed:\n{text[-4000:]}")
        return text

    make_network()
    run("mount", "--make-rprivate", "/")
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    for path in ("/run/sshd", HOME):
        os.mkdir(path)
    bashrc = "\n".join(
        [
            # what the image has: uv, Python and uv's cache instead of a network
            f'export PATH="{Path(sys.executable).resolve().parent}:{_folder_of("uv")}:$PATH"',
            "export UV_OFFLINE=1 UV_PYTHON_DOWNLOADS=never",
            # where AWS is
            f"export AWS_ENDPOINT_URL={ENDPOINT} AWS_DEFAULT_REGION={REGION}",
            # Ray counts GPUs that are not there
            "export SWEEPS_DRILL_FAKE_GPUS=1",
            "",
        ]
    )
    with contextlib.ExitStack() as stack:
        # the group is known when there is a server to make it
        settings = {"stock": STOCK, "policies": may("sg-*"), "log": str(folder / "calls.jsonl")}
        moto = [sys.executable, "-m", "tests.cluster.aws", GATEWAY, "5000", json.dumps(settings)]
        stack.enter_context(
            process(moto, folder / "moto.log", {**environment, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"})
        )
        wait_for(lambda: _answers(ENDPOINT) is not None, "moto's start", 60)
        made = account(folder)
        cluster = folder / "cluster.yaml"
        write_cluster_file(cluster, made, workers=1)
        machines = Machines(folder, ENDPOINT, REGION, bashrc, cache, folder / "wheels")
        stack.callback(machines.close)

        ray("get-auth-token", "--generate", name="token")
        ray("up", "-y", str(cluster), name="up")
        head = list(states())

        def session(name: str) -> str:
            found = ray("exec", str(cluster), "readlink /tmp/ray/session_latest", name=name)
            return re.findall(r"^/tmp/ray/(session_[\d_-]+)", found, re.MULTILINE)[-1]

        before = session("session")
        ray("up", "-y", str(cluster), name="up_again")
        seen["up_twice_is_harmless"] = list(states()) == head and session("session_again") == before

        stack.enter_context(
            process([str(tools / "ray"), "dashboard", str(cluster)], folder / "dashboard.log", environment)
        )
        wait_for(lambda: _answers(DASHBOARD) is not None, "the dashboard", 60)
        seen["status_without_token"] = _answers(f"{DASHBOARD}/api/jobs/")
        token = (home / ".ray" / "auth_token").read_text().strip()
        seen["status_with_token"] = _answers(f"{DASHBOARD}/api/jobs/", token)

        job = [str(tools / "ray"), "job", "submit", "--address", DASHBOARD, "--working-dir", ".", "--"]
        sweep = [
            "env",
            f"SWEEPS_COMMIT={COMMIT}-dirty",
            "python",
            "sweeps/pilcro.py",
            "--storage",
            f"s3://{BUCKET}/results",
        ]
        started = time.monotonic()
        most: dict[str, int] = {}
        with process([*job, *sweep, *TRIALS], folder / "job.log", environment) as child:

            def look() -> int:
                """How many workers there are."""
                now = machines.by_type()
                for kind, number in now.items():
                    most[kind] = max(most.get(kind, 0), number)
                return sum(now.values()) - now.get("head", 0)

            wait_for(lambda: look() == 1 or child.poll() is not None, "the first worker", 120)
            # one more, in the middle of the sweep
            write_cluster_file(cluster, made, workers=2)
            ray("up", "-y", str(cluster), name="up_during_sweep")
            wait_for(lambda: look() == 2 or child.poll() is not None, "the second worker", 120)
            seen["up_for_more_is_harmless"] = session("session_during_sweep") == before
            wait_for(lambda: child.poll() is not None, "the end of the sweep", 600)
            seen["job_exit_code"] = child.returncode
        if child.returncode:
            raise RuntimeError(f"the sweep failed:\n{(folder / 'job.log').read_text()[-4000:]}")
        seen["sweep_seconds"] = round(time.monotonic() - started, 1)
        seen["most_machines"] = most
        say(f"sweep: {seen['sweep_seconds']} s, at most {most}")
        seen["scale_down_seconds"] = round(
            wait_for(
                lambda: "running" not in states("worker").values() and set(machines.by_type()) == {"head"},
                "the end of the idle workers",
                180,
            ),
            1,
        )
        say(f"back to the head alone after {seen['scale_down_seconds']} s")
        seen["workers_started"] = len(states("worker"))

        from analysis.records import read_sweep

        os.environ["AWS_ACCESS_KEY_ID"] = "user"  # as one who reads their record
        trials = read_sweep(f"s3://{BUCKET}/results/pilcro").trials.to_pylist()
        os.environ["AWS_ACCESS_KEY_ID"] = "administrator"
        seen["recorded"] = [(trial["trial_id"], trial["status"], trial["attempts"]) for trial in trials]
        seen["gpus"] = sorted({trial["gpus"] for trial in trials})
        seen["commits"] = sorted({(trial["git_commit"], trial["git_dirty"]) for trial in trials})
        seen["hosts"] = sorted({trial["host"] for trial in trials})
        seen["workers"] = sorted(
            "ip-" + one["PrivateIpAddress"].replace(".", "-")
            for name, one in machines.instances.items()
            if name in states("worker")
        )
        cut_off(folder, machines, token, [*job, *sweep, *TRIALS, "--name", "cut"], environment, seen)
        refuse(head[0], seen)
        lose_head(folder, machines, head[0], [*job, *sweep, *TRIALS, "--name", "lost"], environment, seen)
        disks = boto3.client("ec2", endpoint_url=ENDPOINT).describe_volumes()["Volumes"]
        seen["encrypted"] = [disk["Encrypted"] for disk in disks]
        ray("down", "-y", str(cluster), name="down")
        wait_for(lambda: not machines.running, "the end of all machines", 60)
        seen["states_in_the_end"] = sorted(set(states().values()))
        volumes = boto3.client("ec2", endpoint_url=ENDPOINT).describe_volumes()["Volumes"]
        seen["volumes_in_the_end"] = len(volumes)
        calls = [json.loads(line) for line in (folder / "calls.jsonl").read_text().splitlines()]
        seen["calls"] = sorted({(one["who"], one["action"], tuple(one["by"])) for one in calls})
        seen["refused"] = [one for one in calls if not one["by"]]
        own(folder, home, machines, ray, seen)
        first = machines.history[0][0]
        seen["history"] = [(round(when - first, 1), kind, what) for when, kind, what in machines.history]
    return seen


def cut_off(
    folder: Path, machines: Machines, token: str, command: list[str], environment: dict[str, str], seen: dict[str, Any]
) -> None:
    """The same sweep by another name, in which a worker is cut off the network."""

    def dead() -> int:
        """Nodes that Ray has given up, by the dashboard."""
        request = urllib.request.Request(
            f"{DASHBOARD}/nodes?view=summary", headers={"Authorization": f"Bearer {token}"}
        )
        found = json.load(urllib.request.urlopen(request, timeout=10))["data"]["summary"]
        return sum(node["raylet"].get("state") == "DEAD" for node in found)

    with process(command, folder / "cut.log", environment) as child:

        def at_work() -> list[str]:
            """Workers on which trials have begun to write checkpoints: the attempts they count are on S3."""
            workers = states("worker")
            return [name for name in list(machines.running) if machines.instances[name]["InstanceId"] in workers]

        bucket = boto3.client("s3", endpoint_url=ENDPOINT)

        def started() -> int:
            found = bucket.list_objects_v2(Bucket=BUCKET, Prefix="results/cut/checkpoints/").get("Contents", [])
            return len({one["Key"].split("/")[3] for one in found if one["Key"].endswith("attempts")})

        wait_for(lambda: len(at_work()) == 2 and started() >= 2, "two workers at work", 180)
        before = dead()
        victim = at_work()[0]
        machines.cut_off(victim)
        seen["cut_off_noticed_seconds"] = round(wait_for(lambda: dead() > before, "the loss of the node", 90), 1)
        say(f"a worker without a link is noticed after {seen['cut_off_noticed_seconds']} s")
        wait_for(lambda: child.poll() is not None, "the end of the sweep", 600)
        seen["cut_off_exit_code"] = child.returncode
    from analysis.records import read_sweep

    trials = read_sweep(f"s3://{BUCKET}/results/cut").trials.to_pylist()
    undisturbed = read_sweep(f"s3://{BUCKET}/results/pilcro").trials.to_pylist()
    seen["cut_off_recorded"] = [(trial["trial_id"], trial["status"], trial["attempts"]) for trial in trials]
    results = [
        {trial["trial_id"]: (trial["top1"], trial["loss"]) for trial in sweep} for sweep in (trials, undisturbed)
    ]
    seen["cut_off_same_numbers"] = results[0] == results[1]
    wait_for(
        lambda: set(machines.by_type()) == {"head"} and "running" not in states("worker").values(),
        "the end of the workers",
        300,
    )


def refuse(head: str, seen: dict[str, Any]) -> None:
    """With the head's credentials, what only its user may: to end the head itself."""
    ec2 = boto3.client("ec2", endpoint_url=ENDPOINT, aws_access_key_id="of-sweeps-head", aws_secret_access_key="drill")
    try:
        ec2.terminate_instances(InstanceIds=[head])
    except botocore.exceptions.ClientError as error:
        seen["refused_with"] = error.response["Error"]["Code"]


def lose_head(
    folder: Path, machines: Machines, head: str, command: list[str], environment: dict[str, str], seen: dict[str, Any]
) -> None:
    """The head is cut off while workers train; and a worker that a head has started, but lived not to set up."""
    node = yaml.safe_load((folder / "cluster.yaml").read_text())["available_node_types"]["gpu"]["node_config"]
    node = {key: value for key, value in node.items() if key != "InstanceMarketOptions"}
    with process(command, folder / "lost.log", environment):

        def set_up() -> list[str]:
            """Workers of the head's whose watchdog has looked for it."""
            workers = states("worker")
            found = [name for name in machines.running if name in workers]
            return [name for name in found if (folder / name / "tmp" / "timer.log").exists()]

        wait_for(lambda: len(set_up()) == 2, "two workers", 180)
        time.sleep(10)  # some looks, while the head is there
        workers = set_up()
        machines.cut_off(head)
        lost = time.monotonic()
        orphan = boto3.client("ec2", endpoint_url=ENDPOINT).run_instances(
            **node, **{key: machines.instances[head][key] for key in ("KeyName", "SubnetId")}, MinCount=1, MaxCount=1
        )["Instances"][0]["InstanceId"]
        started = time.monotonic()
        ended: dict[str, float] = {}

        def all_ended() -> bool:
            now = states()
            for name in [*workers, orphan]:
                if now[name] == "terminated":
                    ended.setdefault(name, time.monotonic())
            return len(ended) == len(workers) + 1

        wait_for(all_ended, "the end of the workers without a head", 240)
        seen["lost_head_ended_seconds"] = [round(ended[name] - lost, 1) for name in workers]
        seen["never_set_up_ended_seconds"] = round(ended[orphan] - started, 1)
        seen["lost_head_state"] = states()[head]
        say(f"workers without a head end after {seen['lost_head_ended_seconds']} s")
        machines.restore(head)


def own(folder: Path, home: Path, machines: Machines, ray: Callable[..., str], seen: dict[str, Any]) -> None:
    """sweeps/README.md's variant for machines of one's own, on two that have nothing to do with EC2."""
    key = home / ".ssh" / "id_ed25519"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    addresses = {"192.168.1.10": "172.31.200.10", "192.168.1.11": "172.31.200.11"}
    for name, address in zip(("own-head", "own-worker"), addresses.values(), strict=True):
        machines.add(name, address, key.with_suffix(".pub").read_text().strip())
    text = own_machines((ROOT / "cluster.yaml").read_text(), (ROOT / "sweeps" / "README.md").read_text())
    for old, new in {
        **addresses,
        ", 192.168.1.12": "",
        "ssh_user: me": "ssh_user: ubuntu",
        "~/.ssh/id": f"{key.parent}/id",
    }.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    cluster = folder / "own.yaml"
    cluster.write_text(text)
    ray("up", "-y", str(cluster), name="own_up", older_autoscaler=True)
    ask = "import ray; ray.init(log_to_driver=False); print('nodes', sum(node['Alive'] for node in ray.nodes()))"

    def nodes() -> int:
        return int(
            re.findall(r"^nodes (\d+)", ray("exec", str(cluster), f'python -c "{ask}"', name="own_nodes"), re.M)[-1]
        )

    wait_for(lambda: nodes() == 2, "the second machine", 120)
    seen["own_nodes"] = 2
    ray("down", "-y", str(cluster), name="own_down", older_autoscaler=True)

    def raylets() -> int:
        names = (path.read_text() for path in Path("/proc").glob("[0-9]*/comm"))
        return sum(name.strip() == "raylet" for name in names)

    # a worker's Ray ends when it has missed its head for some time
    seen["own_ended_seconds"] = round(wait_for(lambda: raylets() == 0, "the end of Ray on the machines", 120), 1)


def _folder_of(tool: str) -> Path:
    found = shutil.which(tool)
    assert found, tool
    return Path(found).parent


def _answers(url: str, token: str | None = None) -> int | None:
    """The HTTP status, or None where nobody listens."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        return int(urllib.request.urlopen(request, timeout=5).status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


if __name__ == "__main__":
    where = Path(sys.argv[1])
    result = drill(where, Path(sys.argv[2]))
    (where / "seen.json").write_text(json.dumps(result, indent=1))
