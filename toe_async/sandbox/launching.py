"""From a container's spec to the command that runs it here: program, environment, file system of its own, message file.

A container is enclosed when it is ephemeral, runs a program of the image table or mounts a claim, and the sandbox may
enclose: then /tmp is its own, `terminationMessagePath` a file that the kubelet reads, and its emptyDir and claim
volumes are where they are mounted. All others share the machine's files, without volumes. So do all when the sandbox
runs without root; a claim cannot be mounted then.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from toe_async.sandbox import images
from toe_async.sandbox.enclosure import Enclosure, build
from toe_async.sandbox.environment import ConfigError, Lookup, command, environment
from toe_async.sandbox.images import Image, Program
from toe_async.sandbox.processes import Command
from toe_async.sandbox.status import JsonObject

_DEFAULT_LOG = "/dev/termination-log"
_MESSAGE_BYTES = 4096


class Machine(Struct, frozen=True):
    """What all pods of a kubelet have in common. `process_of` finds the first process of the pod with a UID."""

    root: Path
    marker: str
    lookup: Callable[[str, str, str], JsonObject | None]  # plural, namespace, name
    process_of: Callable[[str], int | None]
    images: tuple[Image, ...] = ()
    encloses: bool = False

    def claim(self, namespace: str, name: str) -> Path:
        """The folder that is a claim's storage, as long as the sandbox runs."""
        return self.root / "claims" / namespace / name


class Launch(Struct, frozen=True):
    """A command that is ready to be started, the file with the container's last words, and its /tmp as it sees it."""

    command: Command
    message_file: str = ""
    tmp: str = "/tmp"  # noqa: S108 the container's own, or the machine's


async def launch(
    machine: Machine, pod: JsonObject, container: JsonObject, address: str, *, target: int | None, attempt: int
) -> Launch:
    """Prepare one start of a container; `target` is the process of the container that it is for, when it has one.

    Raises:
        ConfigError: the container asks for what is not there.
        PullError: its image cannot be pulled.
        OSError: its files cannot be prepared.
    """
    directory = machine.root / pod["metadata"]["uid"]
    lookup: Lookup = lambda plural, name: machine.lookup(plural, pod["metadata"]["namespace"], name)  # noqa: E731
    env = environment(pod, container, address, machine.marker, lookup)
    given = container.get("command") or ("",)
    program = images.find(machine.images, container.get("image") or "", given[0])
    argv = command(container, env)
    volumes = _volumes(machine, pod, container)
    own = "targetContainerName" in container or container in (pod["spec"].get("ephemeralContainers") or ())
    separate = own or program is not None or any(claim for _, claim in volumes.values())
    stdin = bool(container.get("stdin"))
    if not separate:
        where = Path(container.get("workingDir") or directory)
        return Launch(Command(argv, env, where, stdin=stdin))
    folder = directory / f"{container['name']}.{attempt}"
    held = await asyncio.to_thread(_prepare, machine, container, volumes, folder)
    if program is not None:
        pid = _target(machine, pod, program) if target is None else target
        argv = (*program.argv, *argv[1:], *_appended(program.append, held, pid))
    where = Path(container.get("workingDir") or ("/" if held.enclosure is not None else folder))
    return Launch(Command(argv, env, where, stdin, held.enclosure), str(held.message), held.seen_tmp)


def executed(machine: Machine, image: str, beside: Launch, pid: int, argv: tuple[str, ...], *, stdin: bool) -> Command:
    """The command of `pods/exec` beside a running one: same environment, directory and file system.

    Raises PullError when the image table has been asked for a program that only another image has.
    """
    program = images.find(machine.images, image, argv[0])
    if program is not None:
        argv = (*program.argv, *argv[1:], *images.fill(program.exec_append, {"tmp": beside.tmp}))
    running = beside.command
    return Command(argv, running.env, running.directory, stdin, running.enclosure, pid)


def message(path: str) -> str:
    """A container's last words; blocking."""
    try:
        with Path(path).open("rb") as file:
            return file.read(_MESSAGE_BYTES).decode(errors="replace")
    except OSError:
        return ""


class _Prepared(Struct, frozen=True):
    message: Path
    seen_message: str
    seen_tmp: str
    enclosure: Enclosure | None = None


def _prepare(machine: Machine, container: JsonObject, volumes: dict[str, tuple[Path, bool]], folder: Path) -> _Prepared:
    folder.mkdir()
    log = folder / "termination-log"
    log.touch()
    log.chmod(0o666)
    tmp = folder / "tmp"
    if not machine.encloses:
        tmp.mkdir()
        return _Prepared(log, str(log), str(tmp))
    asked = container.get("terminationMessagePath") or _DEFAULT_LOG
    for source, _ in volumes.values():
        source.mkdir(parents=True, exist_ok=True)
        source.chmod(0o777)
    own = {path: source for path, (source, _) in volumes.items()}
    root = folder / "root"
    root.mkdir()
    return _Prepared(log, asked, "/tmp", build(root, {**own, asked: log}))  # noqa: S108 its own


def _volumes(machine: Machine, pod: JsonObject, container: JsonObject) -> dict[str, tuple[Path, bool]]:
    """Mount path -> (folder, whether it is a claim) of the volumes that can be mounted here."""
    kinds = {one["name"]: one for one in pod["spec"].get("volumes") or ()}
    namespace, found = pod["metadata"]["namespace"], {}
    for mount in container.get("volumeMounts") or ():
        volume = kinds.get(mount["name"], {})
        if (claim := volume.get("persistentVolumeClaim")) is not None:
            if machine.lookup("persistentvolumeclaims", namespace, claim["claimName"]) is None:
                raise ConfigError(f'persistentvolumeclaim "{claim["claimName"]}" not found')
            if not machine.encloses:
                raise ConfigError("the sandbox can mount a claim only when it runs as root")
            found[mount["mountPath"]] = (machine.claim(namespace, claim["claimName"]), True)
        elif "emptyDir" in volume:
            place = machine.root / pod["metadata"]["uid"] / "volumes" / mount["name"]
            found[mount["mountPath"]] = (place, False)
    return found


def _target(machine: Machine, pod: JsonObject, program: Program) -> int | None:
    uid = (pod["metadata"].get("labels") or {}).get(program.target_label, "")
    return machine.process_of(uid) if uid else None


def _appended(arguments: tuple[str, ...], held: _Prepared, target: int | None) -> tuple[str, ...]:
    values = {"termination_log": held.seen_message, "tmp": held.seen_tmp}
    if target is not None:
        values["target_pid"] = str(target)
    elif any("{target_pid}" in one for one in arguments):
        raise ConfigError("the process that the container is for does not run on this node")
    return images.fill(arguments, values)
