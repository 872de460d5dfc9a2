"""Weights by name, fetched once: `official/motion-deblur` (the paper's 13 files) and `hf:org/repo/file`.

They are kept in the user's cache as safetensors, under names of our own. The first time a file is seen, its length
and SHA-256 are put on record; a later download has to match, and so has the copy in the cache, every time it is used.
What `official/…` brings must moreover be the very network that the paper trained for that task.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from restormer_cli.errors import Failed, UserError
from restormer_cli.files import cache_folder, sha256_of, write_atomically
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.download import Progress, download

RELEASE = "https://github.com/swz30/Restormer/releases/download/v1.0"
LICENCE = (
    "the paper's weights are under the authors' licence: academic, non-commercial use only "
    "(https://github.com/swz30/Restormer/blob/main/LICENSE.md); using them is agreeing to it"
)
Notice = Callable[[str], None]

log = logging.getLogger("restormer_cli")


@dataclass(frozen=True)
class Official:
    """A file of the release, and the network that must be in it."""

    file: str
    config: ModelConfig


_COLOUR, _BIAS_FREE = ModelConfig(norm="with-bias"), ModelConfig(norm="bias-free")
_GRAY = ModelConfig(norm="bias-free", in_channels=1, out_channels=1)
_DUAL = ModelConfig(norm="with-bias", in_channels=6, dual_pixel=True)

OFFICIAL: dict[str, Official] = {
    "derain": Official("deraining.pth", _COLOUR),
    "motion-deblur": Official("motion_deblurring.pth", _COLOUR),
    "defocus": Official("single_image_defocus_deblurring.pth", _COLOUR),
    "defocus-dual-pixel": Official("dual_pixel_defocus_deblurring.pth", _DUAL),
    "denoise-real": Official("real_denoising.pth", _BIAS_FREE),
    "denoise-color": Official("gaussian_color_denoising_blind.pth", _BIAS_FREE),
    "denoise-color-15": Official("gaussian_color_denoising_sigma15.pth", _BIAS_FREE),
    "denoise-color-25": Official("gaussian_color_denoising_sigma25.pth", _BIAS_FREE),
    "denoise-color-50": Official("gaussian_color_denoising_sigma50.pth", _BIAS_FREE),
    "denoise-gray": Official("gaussian_gray_denoising_blind.pth", _GRAY),
    "denoise-gray-15": Official("gaussian_gray_denoising_sigma15.pth", _GRAY),
    "denoise-gray-25": Official("gaussian_gray_denoising_sigma25.pth", _GRAY),
    "denoise-gray-50": Official("gaussian_gray_denoising_sigma50.pth", _GRAY),
}
"""By the names of their recipes."""

HF_NAME = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+?))?/(?P<file>[\w .+/-]+)", re.ASCII)


def is_remote(name: str | Path) -> bool:
    """Whether a name means a file to be fetched rather than one that is here."""
    return str(name).startswith(("official/", "hf:"))


def fetch(name: str, notice: Notice = log.warning, progress: Progress | None = None) -> Path:
    """`official/TASK` or `hf:org/repo[@revision]/file` -> a file in the cache, downloaded when it is not there.

    notice: called with what people should know, such as the licence before the first download. progress: called
    with the bytes done and, where known, the bytes in all.
    Raises UserError for a name that means nothing, Failed where the file cannot be had or is not what it was.
    """
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # Several processes of one run ask at the same time: one fetches, the others find it there.
        with FileLock(cache / "lock"):
            if name.startswith("official/"):
                return _official(name.removeprefix("official/"), cache, notice, progress)
            return _from_hugging_face(name, cache, notice, progress)
    except OSError as error:
        raise Failed(f"{error.filename or cache}: cannot be written: {error.strerror or error}") from None


def offline() -> bool:
    """Whether the user has forbidden the network: RESTORMER_OFFLINE or HF_HUB_OFFLINE."""
    return any(os.environ.get(name, "0") not in ("", "0") for name in ("RESTORMER_OFFLINE", "HF_HUB_OFFLINE"))


# --- The paper's files --------------------------------------------------------------------------------------


def _official(task: str, cache: Path, notice: Notice, progress: Progress | None) -> Path:
    if task not in OFFICIAL:
        raise UserError(f"official/{task}: no such weights; the paper's are {', '.join(OFFICIAL)}")
    name, official = f"official/{task}", OFFICIAL[task]
    path = cache / "official" / f"{task}.safetensors"
    records = Records(cache / "records.json")
    if records.has_sound(name, path):
        return path
    url = f"{os.environ.get('RESTORMER_MIRROR', RELEASE).rstrip('/')}/{official.file}"
    by_hand = f"or fetch {official.file} elsewhere and name it: --weights {official.file}"
    if offline():
        where = f"{name}: is not in {path.parent}"
        raise Failed(f"{where}, and the network is switched off: unset RESTORMER_OFFLINE, {by_hand}")
    notice(f"{name}: {LICENCE}")
    original = path.with_suffix(".pth")
    try:
        length, digest = download(url, original, progress=progress)
        records.check(name, length, digest)
        header = {"task": task, "licence": LICENCE, "source": {"url": url, "sha256": digest}}
        converted = _convert(original, path, header, official.config)
    except Failed as error:
        raise Failed(f"{name}: {error}, {by_hand}") from None
    finally:
        original.unlink(missing_ok=True)  # what broke off is kept under another name
    records.add(name, url, length, digest, converted)
    return path


def _convert(original: Path, path: Path, header: dict[str, Any], wanted: ModelConfig | None = None) -> str:
    """Write the weights in `original` as safetensors -> the SHA-256 of `path`. Raises Failed for what are none."""
    from restormer_cli.model.weights_file import load_file, save_weights

    try:
        weights = load_file(original)
    except UserError as error:
        raise Failed(str(error)) from None
    if wanted is not None and weights.config != wanted:
        raise Failed(f"{original.name} came, but is not the network that the paper trained for {path.stem}")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, weights.model, weights.header | header)
    return sha256_of(path)


# --- Hugging Face -------------------------------------------------------------------------------------------


def _from_hugging_face(name: str, cache: Path, notice: Notice, progress: Progress | None) -> Path:
    match = HF_NAME.fullmatch(name)
    if match is None or ".." in name:
        raise UserError(f"{name}: write hf:organisation/repository/file.safetensors")
    repo, revision, file = match["repo"], match["revision"], match["file"]
    if Path(file).suffix not in (".safetensors", ".pth", ".pt", ".ckpt", ".bin"):
        raise UserError(f"{name}: weights are files such as model.safetensors or model.pth")
    records = Records(cache / "records.json")
    path = cache / "hf" / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.safetensors"  # no name from outside
    if records.has_sound(name, path):
        return path
    if offline():
        raise Failed(f"{name}: is not in {path.parent}, and the network is switched off: unset RESTORMER_OFFLINE")
    notice(f"{name}: {_hf_licence(repo, revision)}")
    got = _hf_download(name, repo, revision, file, progress)
    length, digest = got.stat().st_size, sha256_of(got)
    records.check(name, length, digest)
    source = {"repository": repo, "revision": revision, "file": file, "sha256": digest}
    records.add(name, f"hf:{repo}", length, digest, _convert(got, path, {"source": source}))
    return path


def _hf_download(name: str, repo: str, revision: str | None, file: str, progress: Progress | None) -> Path:
    """Through huggingface_hub, which keeps its own cache, resumes, and knows about tokens and mirrors."""
    from huggingface_hub import errors, hf_hub_download

    page = f"https://huggingface.co/{repo}"
    try:
        return Path(hf_hub_download(repo, file, revision=revision, tqdm_class=_bar(progress)))
    except errors.GatedRepoError:
        raise Failed(f"{name}: its owners ask for consent: give it on {page}, then run `hf auth login`") from None
    except errors.RepositoryNotFoundError:
        raise Failed(f"{name}: no such repository, or a private one: check the name, or run `hf auth login`") from None
    except errors.RevisionNotFoundError:
        raise Failed(f"{name}: {repo} has no revision {revision}: look at {page}/commits") from None
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise Failed(f"{name}: cannot be reached, and is not in the cache: check the network") from None
        raise Failed(f"{name}: {repo} has no file {file}: look at {page}/tree/main") from None
    except Exception as error:  # its transports change, and with them what they raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise Failed(f"{name}: cannot be fetched ({reason}): check the network, then run it again") from None


def _hf_licence(repo: str, revision: str | None) -> str:
    """Licence as the repository's page gives it."""
    from huggingface_hub import HfApi

    try:
        card = HfApi().model_info(repo, revision=revision, timeout=10).card_data
    except Exception:  # the download itself will say what is wrong
        card = None
    licence = getattr(card, "license", None)
    where = f"https://huggingface.co/{repo}"
    return f"licence {licence} ({where})" if licence else f"states no licence that could be read: look at {where}"


def _bar(progress: Progress | None) -> Any:
    """huggingface_hub draws with tqdm: a class of that shape which draws nothing, and tells `progress`."""
    from tqdm.auto import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(disable=True)
            self.n, self.total = kwargs.get("initial") or 0, kwargs.get("total")

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if progress is not None:
                progress(int(self.n), None if self.total is None else int(self.total))

    return Bar


# --- What was seen ------------------------------------------------------------------------------------------


class Records:
    """Length and hash of every file fetched so far, by the name it was asked for; held in one JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            values = {}
        except ValueError:
            raise Failed(f"{path}: is damaged: delete it, and the files are taken as new") from None
        self.values: dict[str, dict[str, Any]] = values

    def has_sound(self, name: str, path: Path) -> bool:
        """Whether the converted file is there and as it was written."""
        return name in self.values and path.is_file() and sha256_of(path) == self.values[name].get("converted")

    def check(self, name: str, length: int, digest: str) -> None:
        """Raises Failed where a download is not what came the first time."""
        known = self.values.get(name)
        if known is not None and (known["length"], known["sha256"]) != (length, digest):
            raise Failed(
                f"not the file that came on {known['seen']} ({length:,} bytes, SHA-256 {digest[:12]}…, then "
                f"{known['length']:,} and {known['sha256'][:12]}…): if that is right, delete {name} from {self.path}"
            )

    def add(self, name: str, source: str, length: int, digest: str, converted: str) -> None:
        """Put a file on record, the day of its first sight kept."""
        seen = self.values.get(name, {}).get("seen", time.strftime("%Y-%m-%d"))
        entry = {"source": source, "length": length, "sha256": digest, "converted": converted, "seen": seen}
        self.values[name] = entry
        text = json.dumps(self.values, indent=2)
        write_atomically(self.path, lambda stream: stream.write(text.encode()))
