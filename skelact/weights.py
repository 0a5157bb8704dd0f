"""Names of models become verified files: of the zoo of published checkpoints, or of those that ship with skelact.

A download grows in ``FILE.part``, goes on there after a break, and gets its final name only when its sha256
is right. A file put into the folder by hand, under its published name, is as good.
"""

from __future__ import annotations

import difflib
import os
import threading
import time
import zipfile
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout
from tqdm import tqdm

from skelact.errors import SkelactError
from skelact.files import sha256_of, user_cache
from skelact.shipped import folder as shipped_folder
from skelact.shipped import shipped, shipped_path

PUBLISHER = "https://download.openmmlab.com"  # what SKELACT_WEIGHTS_URL replaces
TIMEOUT_S = 10.0  # to connect, and for each read, of a request that nobody waits for any more
RETRY_DELAYS_S = (1.0, 2.0, 4.0)
MAX_BYTES = 512 << 20  # of a file, or of what is packed in it: more than any model that is published has
CHUNK_BYTES = 1 << 16
PATIENCE_S = 5.0  # that a download may stand still

# A001 to A060 of NTU RGB+D, as its authors write them.
NTU60_CLASSES = (
    *("drink water", "eat meal/snack", "brushing teeth", "brushing hair", "drop", "pickup", "throw"),
    *("sitting down", "standing up (from sitting position)", "clapping", "reading", "writing"),
    *("tear up paper", "wear jacket", "take off jacket", "wear a shoe", "take off a shoe", "wear on glasses"),
    *("take off glasses", "put on a hat/cap", "take off a hat/cap", "cheer up", "hand waving"),
    *("kicking something", "reach into pocket", "hopping (one foot jumping)", "jump up"),
    *("make a phone call/answer phone", "playing with phone/tablet", "typing on a keyboard"),
    *("pointing to something with finger", "taking a selfie", "check time (from watch)"),
    *("rub two hands together", "nod head/bow", "shake head", "wipe face", "salute"),
    *("put the palms together", "cross hands in front (say stop)", "sneeze/cough", "staggering", "falling"),
    *("touch head (headache)", "touch chest (stomachache/heart pain)", "touch back (backache)"),
    *("touch neck (neckache)", "nausea or vomiting condition", "use a fan (with hand or paper)/feeling warm"),
    *("punching/slapping other person", "kicking other person", "pushing other person"),
    *("pat on back of other person", "point finger at the other person", "hugging other person"),
    *("giving something to other person", "touch other person's pocket", "handshaking"),
    *("walking towards each other", "walking apart from each other"),
)


@dataclass(frozen=True)
class PublishedModel:
    """One checkpoint file that somebody published.

    Attributes:
        name: in the zoo.
        url: of the file.
        sha256: of the file, in lower-case hex; all of it or its beginning, as far as it is known.
        stream: joint, bone, joint-motion or bone-motion.
        layout: name of the joint layout.
        class_names: in the order of the network's outputs.
        top1: published accuracy in percent; None for a pose model.
        source: the page that publishes it.
    """

    name: str
    url: str
    sha256: str
    stream: str
    layout: str
    class_names: tuple[str, ...]
    top1: float | None
    source: str

    @property
    def file_name(self) -> str:
        """As published, which is also its name in the cache."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class FusedModel:
    """Several streams whose scores are summed.

    Attributes:
        name: in the zoo.
        members: (name of a ``PublishedModel``, weight of its scores).
        top1: published accuracy in percent.
        source: the page that publishes it.
    """

    name: str
    members: tuple[tuple[str, float], ...]
    top1: float
    source: str


@dataclass(frozen=True)
class ResolvedModel:
    """A checkpoint file on this machine.

    Attributes:
        path: of the file.
        weight: of its scores in the sum.
        published: what the zoo knows of it; None for the user's own file.
    """

    path: Path
    weight: float = 1.0
    published: PublishedModel | None = None


NTU60_SOURCE = "https://github.com/open-mmlab/mmaction2/tree/main/configs/skeleton/stgcnpp"


def _ntu60(dims: str, stream: str, date: str, sha256: str, top1: float) -> PublishedModel:
    run = f"stgcnpp_8xb16-{stream}-u100-80e_ntu60-xsub-keypoint-{dims}"
    return PublishedModel(
        name=f"ntu60-{dims}-{stream}",
        url=f"{PUBLISHER}/mmaction/v1.0/skeleton/stgcnpp/{run}/{run}_{date}-{sha256[:8]}.pth",
        sha256=sha256,
        stream=stream,
        layout={"2d": "coco", "3d": "nturgb+d"}[dims],
        class_names=NTU60_CLASSES,
        top1=top1,
        source=NTU60_SOURCE,
    )


def _ntu60_fused(dims: str, name: str, weights: dict[str, float], top1: float) -> FusedModel:
    members = tuple((f"ntu60-{dims}-{stream}", weight) for stream, weight in weights.items())
    return FusedModel(f"ntu60-{dims}-{name}", members, top1, NTU60_SOURCE)


_JOINT_2D_SHA256 = "86e1e77a7b27dd53c6ccc1600a4cc3c321ec8e04d17f25a41fbbb7896026945a"
# Scores of the streams are fused with these weights, as published.
TWO_STREAM = {"joint": 1.0, "bone": 1.0}
FOUR_STREAM = {"joint": 2.0, "joint-motion": 1.0, "bone": 2.0, "bone-motion": 1.0}

ZOO: dict[str, PublishedModel | FusedModel] = {
    model.name: model
    for model in (
        _ntu60("2d", "joint", "20221228", _JOINT_2D_SHA256, 89.29),
        _ntu60("2d", "bone", "20221228", "cd11a691", 92.30),
        _ntu60("2d", "joint-motion", "20221228", "19a34aba", 87.30),
        _ntu60("2d", "bone-motion", "20221228", "c02a0749", 88.76),
        _ntu60_fused("2d", "two-stream", TWO_STREAM, 92.61),
        _ntu60_fused("2d", "four-stream", FOUR_STREAM, 92.77),
        _ntu60("3d", "joint", "20221230", "4e455ce3", 89.14),
        _ntu60("3d", "bone", "20221230", "7f356072", 90.21),
        _ntu60("3d", "joint-motion", "20221230", "650de5cc", 86.67),
        _ntu60("3d", "bone-motion", "20221230", "b00440d2", 87.45),
        _ntu60_fused("3d", "two-stream", TWO_STREAM, 91.39),
        _ntu60_fused("3d", "four-stream", FOUR_STREAM, 91.87),
    )
}


def yolo_pose(file_name: str) -> PublishedModel:
    """Weights that ultralytics publishes. It tells no hash; its safe loader runs nothing in them."""
    return PublishedModel(
        name=file_name,
        url=f"https://github.com/ultralytics/assets/releases/download/v8.4.0/{file_name}",
        sha256="",
        stream="",
        layout="coco",
        class_names=(),
        top1=None,
        source="https://docs.ultralytics.com/tasks/pose/",
    )


YOLO26N_POSE = yolo_pose("yolo26n-pose.pt")


def offline() -> bool:
    """Whether ``SKELACT_OFFLINE`` (or ``--offline``, which sets it) forbids the network."""
    return os.environ.get("SKELACT_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "n", "off")


def weights_folder() -> Path:
    """Where downloads are kept: ``$SKELACT_WEIGHTS``, or a folder in the user's cache."""
    chosen = os.environ.get("SKELACT_WEIGHTS")
    folder = Path(chosen) if chosen else user_cache() / "weights"
    return folder.expanduser().absolute()


def streams(name: str) -> list[tuple[PublishedModel, float]]:
    """The published models behind a zoo name, each with the weight of its scores; a single one weighs 1.

    Raises:
        SkelactError: the zoo has no such name.
    """
    model = _entry(name)
    if isinstance(model, PublishedModel):
        return [(model, 1.0)]
    return [(_published(member), weight) for member, weight in model.members]


def locate(name: str) -> Path | None:
    """The verified file of a published model, or None if it is not in the cache.

    Raises:
        SkelactError: the zoo has no such name, it is a fused one, or another file lies in its place.
    """
    model = _published(name)
    path = weights_folder() / model.file_name
    try:
        found = sha256_of(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SkelactError(f"cannot read {path}: {error.strerror or error}") from error
    if not model.sha256 and not is_whole(model, path):
        raise SkelactError(f"{path} is damaged; remove it and run: skelact weights fetch {name}")
    if not found.startswith(model.sha256):
        raise SkelactError(
            f"{path} is not {name}: expected sha256 {model.sha256}, found {found}; "
            f"remove it and run: skelact weights fetch {name}"
        )
    return path


def fetch(name: str, progress: bool = True) -> Path:
    """Download a published model, unless the cache has it.

    Args:
        name: in the zoo, not a fused one (``streams`` tells the members of those).
        progress: draw a bar on stderr, if that is a terminal.

    Returns:
        The verified file.

    Raises:
        SkelactError: unknown name, no network, nothing for ``PATIENCE_S``, wrong content or no room. What came before
            a break is kept, and the next call goes on from there.
    """
    model = _published(name)
    if path := locate(name):
        return path
    if offline():
        raise _no_download(model, "offline")
    path = weights_folder() / model.file_name
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not locate(name):  # whoever held the lock may have fetched it
                _download_verified(model, part, progress)
                os.replace(part, path)
    except OSError as error:
        raise SkelactError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def fetch_patiently(model: PublishedModel, progress: bool = True) -> Path:
    """Download a file in one try.

    A name server, a connection, a body or another program that hangs costs no more than ``PATIENCE_S``.

    Args:
        model: what to download; its hash is checked as far as it is known.
        progress: as in ``fetch``.

    Raises:
        SkelactError: it is not to be had now.
    """
    if offline():
        raise _no_download(model, "offline")
    path, since = weights_folder() / model.file_name, time.monotonic()
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=PATIENCE_S):
            if is_whole(model, path):  # whoever held the lock may have fetched it
                return path
            if not model.sha256:
                part.unlink(missing_ok=True)  # nothing tells whether it is the beginning of this file
            try:
                _receive_watched(model, part, progress, since)
            except _TransferError as error:
                raise _no_download(model, error) from error
            if not is_whole(model, part):
                part.unlink()
                raise _no_download(model, "the content is not what was published")
            os.replace(part, path)
    except Timeout:
        raise _no_download(model, "another program is at it") from None
    except OSError as error:
        raise SkelactError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def is_whole(model: PublishedModel, path: Path) -> bool:
    """Whether a file is what was published, as far as its hash is known; else whether it is an undamaged archive."""
    if not os.path.isfile(path):  # Path.is_file() raises where the folder can't be read
        return False
    if model.sha256:
        return sha256_of(path).startswith(model.sha256)
    try:
        with zipfile.ZipFile(path) as archive:
            is_small = sum(entry.file_size for entry in archive.infolist()) <= MAX_BYTES
            return is_small and archive.testzip() is None
    except Exception:  # zipfile, zlib and struct have many for what is damaged
        return False


def resolve(name_or_path: str | Path, progress: bool = True) -> list[ResolvedModel]:
    """The file, or a name's file or files, downloaded where they are missing.

    Args:
        name_or_path: a file has precedence over a name.
        progress: as in ``fetch``.

    Raises:
        SkelactError: it is neither a file nor a zoo name, or the download failed.
    """
    path, name = Path(name_or_path), str(name_or_path)
    if path.is_file() or (path.is_dir() and any(path.glob("*.xml"))):  # a folder with an OpenVINO export
        return [ResolvedModel(path)]
    if name in shipped():
        model = shipped()[name]
        if model.kind == "pose":
            raise SkelactError(f"{name} finds poses and names no actions; give it as --pose-model")
        return [ResolvedModel(shipped_path(each), weight) for each, weight in model.streams or ((name, 1.0),)]
    if name == YOLO26N_POSE.name:
        raise SkelactError(f"{name} finds poses and names no actions; give it as --pose-model")
    if path.is_dir() and name not in ZOO:
        trained = [*path.glob("best.safetensors"), *sorted(path.glob("*/best.safetensors"))]
        advice = f"it holds {', '.join(map(str, trained))}" if trained else _advice(name)
        raise SkelactError(f"{name!r} is a folder, not a checkpoint file; {advice}")
    if name not in ZOO:
        raise SkelactError(f"{name!r} is neither a file nor a zoo name; {_advice(name)}")
    return [ResolvedModel(fetch(member.name, progress), weight, member) for member, weight in streams(name)]


class _TransferError(Exception):
    """The network failed in a way that may pass."""


class _StalledError(_TransferError):
    """Nothing came for too long."""


def _entry(name: str) -> PublishedModel | FusedModel:
    if name == YOLO26N_POSE.name:
        return YOLO26N_POSE
    if name not in ZOO:
        raise SkelactError(f"{name!r} is not in the zoo; {_advice(name)}")
    return ZOO[name]


def _published(name: str) -> PublishedModel:
    model = _entry(name)
    if isinstance(model, FusedModel):
        members = ", ".join(member for member, _ in model.members)
        raise SkelactError(f"{name} is no single file but several streams: {members}")
    return model


def _advice(name: str) -> str:
    if name.startswith("skelact-") and not shipped():
        return f"the weights that come with skelact are missing ({shipped_folder()}), install it anew"
    near = difflib.get_close_matches(name.lower(), [*shipped(), *ZOO])
    return (f"did you mean {', '.join(near)}? " if near else "") + "`skelact weights list` shows all names"


def _download_url(model: PublishedModel) -> str:
    mirror = os.environ.get("SKELACT_WEIGHTS_URL")
    if not mirror:
        return model.url
    if model.url.startswith(PUBLISHER):
        return model.url.replace(PUBLISHER, mirror.rstrip("/"), 1)
    return f"{mirror.rstrip('/')}/{model.file_name}"


def _download_verified(model: PublishedModel, part: Path, progress: bool) -> None:
    """Complete ``part``; remove it if its content is wrong."""
    resumed = part.exists()
    _download(model, part, progress)
    if is_whole(model, part):
        return
    found = sha256_of(part)
    part.unlink()
    if resumed:  # what an earlier run left may be to blame: once more, from the first byte
        return _download_verified(model, part, progress)
    expected = f"sha256 {model.sha256}" if model.sha256 else "weights"
    raise SkelactError(
        f"{_download_url(model)} is not {model.name}: expected {expected}, found {found}; the download was removed"
    )


def _download(model: PublishedModel, part: Path, progress: bool) -> None:
    """Complete ``part``, going on after breaks; a network from which nothing comes at all is given up."""
    for delay_s in (*RETRY_DELAYS_S, None):
        before = _size(part)
        try:
            return _receive_watched(model, part, progress)
        except _TransferError as error:
            if delay_s is None or (isinstance(error, _StalledError) and _size(part) == before):
                raise _no_download(model, error) from error
            time.sleep(delay_s)


def _receive_watched(model: PublishedModel, part: Path, progress: bool, since: float | None = None) -> None:
    """``_receive``, given up where nothing has come for ``PATIENCE_S``, the first time since a moment."""
    failure: list[BaseException] = []
    given_up = threading.Event()

    def receive() -> None:
        try:
            _receive(model, part, progress, given_up)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=receive, daemon=True)  # a name server's answer can't be waited for shorter
    since, size = time.monotonic() if since is None else since, _size(part)
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
        if (now := _size(part)) != size:
            size, since = now, time.monotonic()
        if thread.is_alive() and time.monotonic() - since > PATIENCE_S:
            given_up.set()
            raise _StalledError(f"nothing came for {PATIENCE_S:g} s")
    for error in failure:
        told = isinstance(error, OSError | SkelactError | _TransferError) or not isinstance(error, Exception)
        raise error if told else _no_download(model, error)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _receive(model: PublishedModel, part: Path, progress: bool, given_up: threading.Event) -> None:
    """One request for what ``part`` lacks; nothing more is written once it is given up."""
    start = _size(part)
    try:
        headers = {"User-Agent": "skelact"} | ({"Range": f"bytes={start}-"} if start else {})
        response = urlopen(Request(_download_url(model), headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # the part is as long as the file or longer, so it is no part of it
            part.unlink(missing_ok=True)
        if error.code in (408, 416, 429) or error.code >= 500:
            raise _TransferError(error) from error
        raise _no_download(model, error) from error
    except URLError as error:  # no connection at all
        raise _no_download(model, error.reason) from error
    except (ValueError, InvalidURL) as error:  # a mirror that is no URL
        raise _no_download(model, error) from error
    except (OSError, HTTPException) as error:  # connected, then no answer
        raise _TransferError(_reason(error)) from error

    with response:
        if response.status != 206:  # the server sends everything, asked for a range or not
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        bar = tqdm(
            desc=model.name,
            total=total,
            initial=start,
            unit="B",
            unit_scale=True,
            disable=None if progress else True,  # None: where stderr is no terminal
        )
        if given_up.is_set():
            return
        with bar, part.open("ab" if start else "wb") as file:
            while (chunk := _read(response)) and not given_up.is_set() and file.tell() <= MAX_BYTES:
                file.write(chunk)
                bar.update(len(chunk))
    size = part.stat().st_size
    if size > MAX_BYTES:
        part.unlink()
        raise _no_download(model, f"more than {MAX_BYTES >> 20} MB came")
    if total is not None and size < total:
        raise _TransferError(f"the connection closed after {size} of {total} bytes")
    if total is not None and size > total:
        part.unlink()
        raise _TransferError(f"{size} bytes came instead of {total}")


def _read(response: HTTPResponse) -> bytes:
    """What has arrived; kept apart so that an OSError here is the network and elsewhere the disk."""
    try:
        return response.read1(CHUNK_BYTES)
    except (OSError, HTTPException) as error:
        raise _TransferError(_reason(error)) from error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _no_download(model: PublishedModel, reason: object) -> SkelactError:
    folder = weights_folder()
    single = [entry for entry in ZOO.values() if isinstance(entry, PublishedModel)]
    here = [entry.name for entry in single if os.path.isfile(folder / entry.file_name)]
    again = "allow the network" if offline() else "try again to go on"
    return SkelactError(
        f"cannot download {model.name} from {_download_url(model)} ({reason}); {again}, set "
        f"SKELACT_WEIGHTS_URL to a mirror, or put the file {model.file_name} into {folder}; "
        f"available there: {', '.join(here) or 'nothing yet'}"
    )
