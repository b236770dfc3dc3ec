"""deploy/kubernetes: valid, in agreement with the programs, and true where it asks the database."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import kubernetes_validate
import psycopg
import pytest
import yaml
from cloudcoil.models.keda import v1alpha1 as keda
from pydantic import ValidationError

from deploy_files import (
    DEPLOY,
    LAST_WORDS_SECONDS,
    ROOT,
    check_settings,
    created_logins,
    environment_file,
    need,
    procfile,
)
from helpers import Jobs, wait_for
from jobrunner import embedded
from jobrunner.binaries import find_binaries
from processes import System, environment, system
from web.database import POOL_CONNECTIONS
from web_server import WebServer, web_settings

FOLDER = DEPLOY / "kubernetes"
FOLDERS = [FOLDER, FOLDER / "migrate", FOLDER / "keda"]
EXAMPLES = [FOLDER / "examples" / "ingress.yaml", FOLDER / "examples" / "secrets.yaml.example"]
KUBERNETES = "1.33"
OLDEST_MINOR = 27

Manifest = dict[str, Any]


def read(path: Path) -> list[Manifest]:
    return list(yaml.safe_load_all(path.read_text()))


def kustomization(folder: Path) -> Manifest:
    (found,) = read(folder / "kustomization.yaml")
    return found


def files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.yaml")) if path.name != "kustomization.yaml"]


MANIFESTS = [manifest for folder in FOLDERS for path in files(folder) for manifest in read(path)]
OF_KUBERNETES = [it for it in MANIFESTS if not it["apiVersion"].startswith("keda.sh/")]


def find(kind: str, name: str) -> Manifest:
    (found,) = [it for it in MANIFESTS if (it["kind"], it["metadata"]["name"]) == (kind, name)]
    return found


def name_of(manifest: Any) -> str:
    return f"{manifest['kind']}-{manifest['metadata']['name']}" if "kind" in manifest else "list"


WORKLOADS = {"web": "Deployment", "runner": "Deployment", "migrate": "Job"}
COMMANDS = {"web": "web", "runner": "jobrunner", "migrate": "release"}
LOGINS = {"web": "web_login", "runner": "runner_login", "migrate": "owner_login"}


def pod(service: str) -> Manifest:
    spec: Manifest = find(WORKLOADS[service], service)["spec"]["template"]["spec"]
    return spec


def container(service: str) -> Manifest:
    (found,) = pod(service)["containers"]
    return dict(found)


def probe_command(probe: str) -> list[str]:
    """The command of a probe of the runner, for this machine."""
    program, script, *arguments = container("runner")[probe]["exec"]["command"]
    assert program == "python"
    return [sys.executable, script.replace("/opt/jobrunner/share", str(DEPLOY)), *arguments]


# Their shape


@pytest.mark.parametrize("manifest", OF_KUBERNETES, ids=name_of)
def test_each_manifest_is_what_kubernetes_takes(manifest: Manifest) -> None:
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_a_manifest_with_a_field_that_is_not_there_is_refused() -> None:
    wrong = json.loads(json.dumps(find("Deployment", "web")))
    wrong["spec"]["template"]["spec"]["terminationGraceSeconds"] = 30

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_manifest_of_a_folder_is_applied_with_it(folder: Path) -> None:
    assert set(kustomization(folder)["resources"]) == {path.name for path in files(folder)}


@pytest.fixture
def kubectl() -> str:
    """A kubectl of the oldest Kubernetes that the docs name, or a newer one."""
    need("kubectl")
    asked = ["kubectl", "version", "--client", "--output=json"]
    said = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    minor = int(re.sub(r"\D", "", said["clientVersion"]["minor"]))
    if minor < OLDEST_MINOR:
        pytest.skip(f"kubectl 1.{minor} is too old: its kustomize does not know all that is used")
    return "kubectl"


def test_the_oldest_kubernetes_is_the_one_that_the_docs_name() -> None:
    assert f"Kubernetes 1.{OLDEST_MINOR} or newer" in (ROOT / "docs" / "deploy.md").read_text()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_kustomize_builds_it_and_what_it_builds_is_valid(folder: Path, kubectl: str) -> None:
    built = subprocess.run(
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=True
    )

    for manifest in yaml.safe_load_all(built.stdout):
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == "jobrunner"
        if not manifest["apiVersion"].startswith("keda.sh/"):
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_same_image_is_named_everywhere() -> None:
    images = [image for folder in FOLDERS for image in kustomization(folder).get("images", [])]

    assert len(images) == 2
    assert images[0] == images[1]
    assert {container(service)["image"] for service in WORKLOADS} == {images[0]["name"]}


# What agrees with the programs


@pytest.mark.parametrize("service", WORKLOADS)
def test_the_commands_are_those_of_the_procfile(service: str) -> None:
    assert container(service)["command"] == procfile()[COMMANDS[service]]


@pytest.mark.parametrize("service", ["web", "runner"])
def test_every_setting_is_known_and_its_value_is_taken(service: str) -> None:
    (generated,) = [
        it
        for it in kustomization(FOLDER)["configMapGenerator"]
        if it["name"] == f"{service}-settings"
    ]
    assert container(service)["envFrom"] == [{"configMapRef": {"name": generated["name"]}}]
    assert generated["envs"] == [f"{service}.env"]

    check_settings(service, environment_file(FOLDER / f"{service}.env"))


def test_the_web_listens_where_the_service_and_the_probes_look() -> None:
    told = environment_file(FOLDER / "web.env")
    (port,) = container("web")["ports"]

    assert told["HOST"] == "0.0.0.0"
    assert str(port["containerPort"]) == told["PORT"]
    (service,) = find("Service", "web")["spec"]["ports"]
    assert service["targetPort"] == port["name"]


def test_what_waits_for_a_stop_may_do_so_until_it_is_killed() -> None:
    grace = float(environment_file(FOLDER / "runner.env")["JOBRUNNER_GRACE_SECONDS"])
    assert pod("runner")["terminationGracePeriodSeconds"] >= grace + LAST_WORDS_SECONDS

    _, pause = container("web")["lifecycle"]["preStop"]["exec"]["command"]
    config = (ROOT / "web" / "gunicorn_config.py").read_text()
    (graceful,) = re.findall(r"^graceful_timeout = (\d+)$", config, re.MULTILINE)
    stop = int(pause) + int(graceful) + LAST_WORDS_SECONDS
    assert pod("web")["terminationGracePeriodSeconds"] >= stop


def test_the_paths_of_the_probes_are_there_and_want_no_key(web_url: str) -> None:
    with WebServer(web_url, JOBRUNNER_REQUIRE_KEYS="on") as server:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert server.send("GET", container("web")[probe]["httpGet"]["path"]).status == 200


# Who is who


@pytest.mark.parametrize("service", WORKLOADS)
def test_each_service_logs_in_as_itself(service: str) -> None:
    secrets = {it["metadata"]["name"]: it for it in read(EXAMPLES[1])}
    named = {it["name"]: it["valueFrom"]["secretKeyRef"] for it in container(service)["env"]}

    secret = secrets[named["DATABASE_URL"]["name"]]
    login = LOGINS[service]
    assert login in created_logins()
    assert secret["stringData"]["DATABASE_URL"].startswith(f"postgresql://{login}:")
    assert {it["name"] for it in named.values()} == {named["DATABASE_URL"]["name"]}
    check_settings("runner" if service == "migrate" else service, dict.fromkeys(named, "host=a"))


def test_the_secrets_of_the_example_can_not_be_applied_as_they_are() -> None:
    path = EXAMPLES[1]

    assert path.suffix not in (".yaml", ".yml", ".json")
    for secret in read(path):
        (annotation,) = secret["metadata"]["annotations"]
        # https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/
        assert not re.fullmatch(r"([a-z0-9.-]+/)?[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?", annotation)
        assert all("<password>" in value for value in secret["stringData"].values())
        del secret["metadata"]["annotations"]
        kubernetes_validate.validate(secret, KUBERNETES, strict=True)


def test_no_manifest_holds_a_password() -> None:
    assert not [it for it in MANIFESTS if it["kind"] == "Secret"]
    for path in FOLDER.rglob("*"):
        if path.is_file():
            assert not re.search(r"://[^/@\s]*:(?!<password>)[^/@\s]*@", path.read_text()), path


# What they may do


@pytest.mark.parametrize("service", WORKLOADS)
def test_no_pod_can_do_more_than_it_needs(service: str) -> None:
    (uid,) = re.findall(r"^USER (\d+):\d+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert pod(service)["automountServiceAccountToken"] is False
    assert pod(service)["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": int(uid),
        "runAsGroup": int(uid),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(service)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {
        mount["mountPath"]
        for mount in container(service)["volumeMounts"]
        if not mount.get("readOnly")
    }
    assert writable == {"/tmp"}


@pytest.mark.parametrize("service", WORKLOADS)
def test_each_pod_says_what_it_takes_and_has_a_limit_of_memory(service: str) -> None:
    resources = container(service)["resources"]

    assert set(resources["requests"]) == {"cpu", "memory"}
    assert set(resources["limits"]) == {"memory"}


def test_only_the_web_can_be_reached() -> None:
    policies = [it for it in MANIFESTS if it["kind"] == "NetworkPolicy"]
    (closed,) = [it for it in policies if it["metadata"]["name"] == "nothing"]
    reached = [it["spec"] for it in policies if it["spec"].get("ingress")]

    assert closed["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert [it["podSelector"]["matchLabels"] for it in reached] == [
        {"app.kubernetes.io/component": "web"}
    ]
    assert [it["metadata"]["name"] for it in MANIFESTS if it["kind"] == "Service"] == ["web"]


def test_what_selects_pods_finds_them() -> None:
    labels = [
        find(kind, name)["spec"]["template"]["metadata"]["labels"]
        for name, kind in WORKLOADS.items()
    ]
    selectors = [
        it["spec"]["selector"].get("matchLabels", it["spec"]["selector"])
        for it in MANIFESTS
        if "selector" in it.get("spec", {})
    ]

    assert len(selectors) == 5
    assert all(selector in labels for selector in selectors)
    for service in ("web", "runner"):
        spread = pod(service)["topologySpreadConstraints"]
        assert all(it["labelSelector"]["matchLabels"] in labels for it in spread)
        assert len({it["topologyKey"] for it in spread}) == 2


def test_one_pod_at_a_time_may_be_taken_away_and_none_by_a_roll_out() -> None:
    for service in ("web", "runner"):
        budget = find("PodDisruptionBudget", service)["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert find("Deployment", service)["spec"]["strategy"]["rollingUpdate"] == {
            "maxUnavailable": 0,
            "maxSurge": 1,
        }


def test_an_apply_does_not_undo_what_the_autoscalers_have_decided() -> None:
    scaled = {
        find("HorizontalPodAutoscaler", "web")["spec"]["scaleTargetRef"]["name"],
        find("ScaledObject", "runners")["spec"]["scaleTargetRef"]["name"],
    }

    assert scaled == {"web", "runner"}
    assert not any("replicas" in find("Deployment", service)["spec"] for service in scaled)


def test_the_ingress_lets_streams_and_bodies_through() -> None:
    (ingress,) = read(EXAMPLES[0])
    kubernetes_validate.validate(ingress, KUBERNETES, strict=True)
    prefix = "nginx.ingress.kubernetes.io/"
    said = ingress["metadata"]["annotations"]

    assert said[f"{prefix}proxy-buffering"] == "off"
    assert int(said[f"{prefix}proxy-read-timeout"]) > 60
    # More than the 1 MiB of the web, which says so itself.
    assert said[f"{prefix}proxy-body-size"] == "2m"
    (rule,) = ingress["spec"]["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"] == {
        "name": "web",
        "port": {"name": find("Service", "web")["spec"]["ports"][0]["name"]},
    }


# The probes of a runner, asked of a real one


@pytest.fixture
def runners(runner_url: str, tmp_path: Path) -> Iterator[System]:
    with system(runner_url, tmp_path) as started:
        yield started


def probe(name: str, url: str) -> int:
    """Run a probe of the runner's pod; 0 is well."""
    done = subprocess.run(
        probe_command(name), env=environment(url), capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1
    return done.returncode


ALL_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


@pytest.mark.process
def test_the_probes_are_passed_by_a_runner_and_by_nobody_when_it_is_gone(
    runners: System, runner_url: str
) -> None:
    assert [probe(name, runner_url) for name in ALL_PROBES] == [1, 1, 1]

    runner = runners.runner(MOCK_DELAY_SECONDS=0)
    wait_for(lambda: probe("readinessProbe", runner_url) == 0, "it is ready")
    assert [probe(name, runner_url) for name in ALL_PROBES] == [0, 0, 0]

    runner.send(15)
    assert runner.wait() == 0
    assert [probe(name, runner_url) for name in ALL_PROBES] == [1, 1, 1]


@pytest.mark.process
def test_a_runner_that_says_nothing_for_its_lease_is_restarted(
    runners: System, runner_url: str, db: psycopg.Connection[Any]
) -> None:
    runner = runners.runner(MOCK_DELAY_SECONDS=0)
    wait_for(lambda: probe("livenessProbe", runner_url) == 0, "it is alive")
    runner.send(19)
    db.execute("update runner set heartbeat_at = now() - lease * 2")

    assert probe("livenessProbe", runner_url) == 1


def test_a_database_that_is_away_restarts_no_runner() -> None:
    away = f"postgresql://runner_login@127.0.0.1:{embedded.free_port()}/jobrunner"

    assert probe("livenessProbe", away) == 0
    assert probe("readinessProbe", away) == 1


def test_a_database_without_tables_is_one_line_and_no_traceback(owner_url: str) -> None:
    empty = owner_url.rsplit("/", 1)[0] + "/template1"

    assert probe("readinessProbe", empty) == 1
    assert probe("livenessProbe", empty) == 0


@pytest.mark.parametrize(
    ("change", "state", "codes"),
    [
        ("ready_workers = 2", "idle", [0, 0, 0]),
        ("ready_workers = 0", "starting", [1, 1, 0]),
        ("ready_workers = 0, stop_requested_at = now()", "stopping", [0, 0, 0]),
        ("heartbeat_at = now() - lease * 2", "silent", [1, 1, 1]),
        ("lost_at = now(), heartbeat_at = now() - lease * 2", "lost", [1, 1, 1]),
    ],
)
def test_the_probes_see_a_runner_as_people_do(
    jobs: Jobs, runner_url: str, change: LiteralString, state: str, codes: list[int]
) -> None:
    jobs.add_runner("here")
    query: LiteralString = f"update runner set host = %s, {change}"
    jobs.db.execute(query, [os.uname().nodename])

    assert jobs.db.execute("select state from runner_overview").fetchall() == [(state,)]
    assert [probe(name, runner_url) for name in ALL_PROBES] == codes


def test_a_runner_that_hangs_has_lost_its_lease_before_it_is_restarted() -> None:
    told = environment_file(FOLDER / "runner.env")
    liveness = container("runner")["livenessProbe"]

    patience = liveness["periodSeconds"] * (liveness["failureThreshold"] - 1)
    assert patience > float(told["JOBRUNNER_LEASE_SECONDS"])


# How many runners there should be, asked of a real database


def trigger() -> Manifest:
    (found,) = find("ScaledObject", "runners")["spec"]["triggers"]
    return dict(found)


@pytest.fixture
def scaler(
    server: embedded.Server, db: psycopg.Connection[Any], tmp_path: Path
) -> Iterator[psycopg.Connection[Any]]:
    """KEDA's connection, of the login that the script makes."""
    (tmp_path / "scaler_login").write_text("s" * 32)
    password = (server.home / "password").read_text().strip()
    place = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGPASSWORD": password}
    script = DEPLOY / "postgres" / "create_scaler_login.sql"
    subprocess.run(
        [str(find_binaries() / "psql"), "--username", "postgres", "--no-password", "--no-psqlrc"]
        + ["--dbname", db.info.dbname, "-v", f"secrets={tmp_path}", "-f", str(script)],
        env=os.environ | place,
        capture_output=True,
        check=True,
    )
    url = f"postgresql://scaler_login:{'s' * 32}@127.0.0.1:{server.port}/{db.info.dbname}"
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection
    finally:
        db.execute("drop owned by scaler_login")
        db.execute("drop role scaler_login")


def asked(connection: psycopg.Connection[Any]) -> int:
    """What KEDA's query gives: one row of one number."""
    ((number,),) = connection.execute(trigger()["metadata"]["query"]).fetchall()
    assert isinstance(number, int)
    return number


def test_runners_are_wanted_for_what_is_due_and_what_is_under_way(
    scaler: psycopg.Connection[Any], jobs: Jobs
) -> None:
    assert asked(scaler) == 0

    jobs.add()
    jobs.add(status="processing")
    jobs.add(due_in="1 hour")
    jobs.add(status="completed")
    jobs.add(status="failed")
    jobs.add(model="another")

    assert asked(scaler) == 2


def test_a_long_queue_is_not_counted_to_its_end(
    scaler: psycopg.Connection[Any], jobs: Jobs
) -> None:
    spec = find("ScaledObject", "runners")["spec"]
    enough = spec["maxReplicaCount"] * int(trigger()["metadata"]["targetQueryValue"])
    jobs.db.execute(
        """
        insert into job (model, input)
        select 'sentiment', '{"text": "I love it"}' from generate_series(1, 20000)
        """
    )
    jobs.db.execute("analyze job")

    assert asked(scaler) == enough
    query = "explain (analyze, format json) " + trigger()["metadata"]["query"]
    row = scaler.execute(query).fetchone()
    assert row
    plan = json.dumps(row[0])
    assert "job_unfinished_idx" in plan
    assert "Seq Scan" not in plan
    assert max(float(rows) for rows in re.findall(r"\"Actual Rows\": ([\d.]+)", plan)) <= enough


def test_the_scaler_reads_no_text_and_changes_nothing(
    scaler: psycopg.Connection[Any], jobs: Jobs
) -> None:
    jobs.add()

    for statement in (
        "select input from job",
        "select result from job",
        "select client_id from job",
        "select from api_key",
        "select from runner",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            scaler.execute(statement)
    scaler.execute("set default_transaction_read_only to off")
    for statement in (
        "insert into job (input) values ('{}')",
        "update job set priority = 1",
        "delete from job",
        "set role job_web",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            scaler.execute(statement)


def as_keda_reads(manifest: Manifest) -> Manifest:
    """What KEDA's types make of a manifest; they drop what they do not know."""
    kind = getattr(keda, manifest["kind"])
    read: Manifest = kind.model_validate(manifest).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    return read


def known_to_keda(manifest: Manifest) -> Manifest:
    """Leave out what has come with KEDA 2.17; the types are of 2.16."""
    copied: Manifest = json.loads(json.dumps(manifest))
    copied["spec"].get("fallback", {}).pop("behavior", None)
    return copied


OF_KEDA = [it for it in MANIFESTS if it not in OF_KUBERNETES]


@pytest.mark.parametrize("manifest", OF_KEDA, ids=name_of)
def test_keda_knows_each_field_and_takes_each_value(manifest: Manifest) -> None:
    given = known_to_keda(manifest)

    assert as_keda_reads(given) == given


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("polingInterval", 15),
        ("pollingInterval", "15 s"),
        ("scaleTargetRef/names", "runner"),
        ("fallback/replica", 4),
        ("advanced/horizontalPodAutoscalerConfig/behaviour", {}),
        ("triggers/0/metricTypes", "AverageValue"),
        ("triggers/0/metadata", {"targetQueryValue": 20}),
    ],
)
def test_keda_s_types_find_what_is_wrong_with_a_manifest(path: str, value: object) -> None:
    wrong = known_to_keda(find("ScaledObject", "runners"))
    *parents, name = path.split("/")
    place = wrong["spec"]
    for parent in parents:
        place = place[int(parent) if parent.isdigit() else parent]
    place[name] = value

    try:
        read = as_keda_reads(wrong)
    except ValidationError:
        return
    assert read != wrong


def test_keda_is_told_what_its_postgresql_trigger_wants() -> None:
    """By https://keda.sh/docs/latest/scalers/postgresql/: to the types all triggers are alike."""
    scaled = find("ScaledObject", "runners")["spec"]
    said = trigger()
    (reference,) = find("TriggerAuthentication", "queue")["spec"]["secretTargetRef"]
    secrets = {it["metadata"]["name"]: it["stringData"] for it in read(EXAMPLES[1])}

    assert set(scaled) <= {
        "scaleTargetRef", "pollingInterval", "cooldownPeriod", "minReplicaCount",
        "maxReplicaCount", "fallback", "advanced", "triggers",
    }  # fmt: skip
    assert scaled["scaleTargetRef"] == {"name": "runner"}
    assert 0 <= scaled["minReplicaCount"] <= scaled["fallback"]["replicas"]
    assert scaled["fallback"]["replicas"] <= scaled["maxReplicaCount"]
    assert scaled["fallback"]["behavior"] == "currentReplicas"
    # The HPA's own words, so its schema.
    kubernetes_validate.validate(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "of-keda"},
            "spec": {
                "maxReplicas": scaled["maxReplicaCount"],
                "scaleTargetRef": {"kind": "Deployment", "name": "runner"},
                "behavior": scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
            },
        },
        KUBERNETES,
        strict=True,
    )
    assert said["type"] == "postgresql"
    # A fallback is for AverageValue only.
    assert said["metricType"] == "AverageValue"
    assert set(said["metadata"]) == {"query", "targetQueryValue", "activationTargetQueryValue"}
    assert all(isinstance(value, str) for value in said["metadata"].values())
    assert said["authenticationRef"] == {"name": "queue"}
    assert reference["parameter"] == "connection"
    assert "postgresql://scaler_login:" in secrets[reference["name"]][reference["key"]]


def test_the_connections_that_all_pods_may_take_are_what_the_docs_say() -> None:
    most = find("HorizontalPodAutoscaler", "web")["spec"]["maxReplicas"]
    runners = find("ScaledObject", "runners")["spec"]["maxReplicaCount"]
    told = web_settings("postgresql://a@b/c", **environment_file(FOLDER / "web.env"))

    # A roll-out has one more of each; a web process has one more to listen. A runner has two,
    # and one is its probe's for a moment. The rest: migrate, KEDA, and a person.
    web = (most + 1) * told.processes * (POOL_CONNECTIONS + 1)
    needed = web + (runners + 1) * 3 + 5

    assert f"**{needed}**" in (ROOT / "docs" / "deploy.md").read_text()
