"""Weights survive every journey between files, and no file, however odd or hostile, does more than one clear error."""

import argparse
import copy
import functools
import itertools
import json
import os
import pickle
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from restormer_cli import files
from restormer_cli.errors import Failed, UserError
from restormer_cli.model import weights as module
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.weights import load_weights
from restormer_cli.model.weights_file import FORMAT, infer_config, save_weights

TINY: dict[str, Any] = {"dim": 6, "blocks": (2, 1, 1, 3), "heads": (3, 2, 4, 1), "refinement": 1, "expansion": 2.65}
State = dict[str, Tensor]


def tiny(seed: int = 0, **options: Any) -> Restormer:
    return copy.deepcopy(_drawn(seed, tuple(options.items())))


@functools.cache
def _drawn(seed: int, options: tuple[tuple[str, Any], ...]) -> Restormer:
    """Drawn once: that takes longer than what is tested."""
    torch.manual_seed(seed)
    model = Restormer(ModelConfig(**{**TINY, **dict(options)}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model.eval()


def assert_same(model: torch.nn.Module, other: torch.nn.Module) -> None:
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) and theirs[key].dtype == torch.float32 for key in ours)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("wrapper", ["params", "params_ema", "state_dict", "model", None])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "netG.", "net_g.", "_orig_mod.", "netG.module.", "module._orig_mod."]
)
def test_every_wrapper_and_prefix_loads(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    model = tiny()
    state = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 7}, tmp_path / "x.pth")
    loaded = load_weights(tmp_path / "x.pth")
    assert_same(model, loaded.model)
    assert loaded.config == model.config == loaded.model.config
    assert loaded.header == {}
    assert loaded.task is None
    assert not loaded.model.training
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())


def test_the_averaged_weights_are_preferred(tmp_path: Path) -> None:
    torch.save({"params": tiny(1).state_dict(), "params_ema": tiny(2).state_dict()}, tmp_path / "x.pth")
    assert_same(tiny(2), load_weights(tmp_path / "x.pth").model)


def test_the_old_pickle_layout_loads(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"params": tiny().state_dict()}, path, _use_new_zipfile_serialization=False)
    assert_same(tiny(), load_weights(path).model)


def test_safetensors_with_a_prefix_and_no_header_load(tmp_path: Path) -> None:
    save_file({f"module.{k}": v for k, v in tiny().state_dict().items()}, tmp_path / "x.safetensors")
    assert_same(tiny(), load_weights(tmp_path / "x.safetensors").model)


KEY = "latent.2.attn.qkv_dwconv.weight"


def _drop(state: State) -> None:
    del state[KEY]


def _add(state: State) -> None:
    state["latent.2.attn.relative_bias"] = torch.zeros(3)


def _gap(state: State) -> None:
    state["latent.5.norm1.body.weight"] = torch.zeros(48)


def _misshape(state: State) -> None:
    state[KEY] = torch.zeros(144, 1, 5, 5)


def _flatten(state: State) -> None:
    state["patch_embed.proj.weight"] = torch.zeros(6, 27)


def _empty(state: State) -> None:
    state["encoder_level2.0.attn.temperature"] = torch.zeros(0, 1, 1)


def _nan(state: State) -> None:
    state[KEY][3, 0, 1, 1] = float("nan")


def _infinite(state: State) -> None:
    state[KEY] = state[KEY].double()
    state[KEY][3, 0, 1, 1] = 1e300  # finite as stored, not as float32


def _integers(state: State) -> None:
    state[KEY] = state[KEY].to(torch.int32)


def _complex(state: State) -> None:
    state[KEY] = state[KEY].to(torch.complex64)


def _sparse(state: State) -> None:
    state[KEY] = state[KEY].to_sparse()


def _storageless(state: State) -> None:
    state[KEY] = state[KEY].to("meta")


def _enormous(state: State) -> None:
    state["patch_embed.proj.weight"] = torch.zeros(1, 1, 1, 1).expand(6, 10**12, 3, 3)
    state["output.weight"] = torch.zeros(1, 1, 1, 1).expand(10**12, 12, 3, 3)


def _width(state: State) -> None:
    state["encoder_level3.0.ffn.project_out.weight"] = torch.zeros(24, 11, 1, 1)


BOTH: list[tuple[Callable[[State], None], str]] = [
    (_drop, f"{KEY} is missing"),
    (_add, "latent.2.attn.relative_bias is not part of this network"),
    (_gap, "latent.5.norm1.body.weight is not part of this network"),
    (_misshape, rf"{KEY} has shape \[144, 1, 5, 5\], expected \[144, 1, 3, 3\]"),
    (_flatten, r"patch_embed.proj.weight has shape \[6, 27\], expected"),
    (_empty, "encoder_level2.0.attn.temperature has shape"),
    (_width, "ffn.project_out"),
    (_nan, f"{KEY} has values that are not finite"),
    (_infinite, f"{KEY} has values that are not finite"),
    (_integers, f"{KEY} is of type torch.int32, expected floating point"),
    (_complex, f"{KEY} is of type torch.complex64"),
]
PICKLED: list[tuple[Callable[[State], None], str]] = [
    (_sparse, f"{KEY} is not an ordinary dense tensor"),
    (_storageless, f"{KEY} is not an ordinary dense tensor"),
    (_enormous, "larger than any file could hold"),
]


@pytest.mark.parametrize(("spoil", "message"), BOTH + PICKLED)
def test_a_wrong_tensor_in_a_pth_is_named(tmp_path: Path, spoil: Callable[[State], None], message: str) -> None:
    path = tmp_path / "x.pth"
    state = dict(tiny().state_dict())
    spoil(state)
    torch.save({"params": state}, path)
    with pytest.raises(UserError, match=message) as error:
        load_weights(path)
    assert str(path) in one_line(error)


@pytest.mark.parametrize(("spoil", "message"), BOTH)
@pytest.mark.parametrize("ours", [False, True])
def test_a_wrong_tensor_in_safetensors_is_named(
    tmp_path: Path, spoil: Callable[[State], None], message: str, ours: bool
) -> None:
    path = tmp_path / "x.safetensors"
    state = dict(tiny().state_dict())
    spoil(state)
    metadata = {"format": FORMAT, "model": json.dumps(tiny().config.to_dict())} if ours else None
    save_file(state, path, metadata=metadata)
    with pytest.raises(UserError, match=message.split(", expected")[0]) as error:
        load_weights(path)
    assert str(path) in one_line(error)


def test_a_file_of_something_else_names_the_first_missing_key(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"not the weights of a Restormer: patch_embed.proj.weight is missing"):
        load_weights(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "content", [{}, {"params": {}}, [1, 2], 3, torch.zeros(3), {"params": {1: torch.zeros(3)}}, {"epoch": 3}]
)
def test_a_pth_without_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        load_weights(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth", "old.pth"])
def test_a_truncated_file_is_one_clear_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "old.pth":
        torch.save(tiny().state_dict(), path, _use_new_zipfile_serialization=False)
    else:
        save_weights(path, tiny(), {})
    data = path.read_bytes()
    for length in (1, 2, 7, 8, 9, 100, 1000, len(data) // 2, len(data) - 1000, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(UserError) as error:
            load_weights(path)
        assert str(path) in one_line(error), length


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth", "old.pth"])
def test_random_damage_never_escapes_as_another_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "old.pth":
        torch.save(tiny().state_dict(), path, _use_new_zipfile_serialization=False)
    else:
        save_weights(path, tiny(), {})
    data, generator, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(10):
            place = generator.randrange(6000)
            damaged[place if generator.random() < 0.5 else -1 - place] = generator.randrange(256)
        path.write_bytes(damaged)
        try:
            load_weights(path)
        except UserError:
            refused += 1
    assert refused > 50


def test_a_split_zip_is_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    save_weights(path, tiny(), {})
    data = bytearray(path.read_bytes())
    end = data.rfind(b"PK\x06\x07")
    assert end > 0
    data[end + 16] = 9  # "total number of disks"
    path.write_bytes(data)
    with pytest.raises(UserError):
        load_weights(path)


class Exploit:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
@pytest.mark.parametrize("how", ["torch", "old torch", "pickle"])
def test_code_in_a_pickle_is_refused_and_not_executed(tmp_path: Path, suffix: str, how: str) -> None:
    path, marker = tmp_path / f"x{suffix}", tmp_path / "executed"
    content = {"params": dict(tiny().state_dict()), "extra": Exploit(marker)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(UserError, match="refused"):
        load_weights(path)
    assert not marker.exists()
    with path.open("rb") as stream:
        pickle.load(stream) if how == "pickle" else torch.load(stream, weights_only=False)
    assert marker.exists()  # the trap was armed


VARIANTS: list[dict[str, Any]] = [
    dict(zip(("norm", "bias", "attention", "feed_forward", "concat"), values, strict=True))
    for values in itertools.product(
        ("with-bias", "bias-free"), (False, True), ("mdta", "mta"), ("gdfn", "gfn", "dfn", "fn"), (True, False)
    )
]
SHAPES: list[dict[str, Any]] = [
    {},
    {"expansion": 2.53, "dim": 64, "blocks": (2, 3, 3, 4), "refinement": 3},
    {"expansion": 2.0, "dim": 80, "blocks": (1, 2, 2, 2)},
    {"expansion": 4, "dim": 48},
    {"expansion": 0.5, "dim": 48},
    {"dim": 16, "blocks": (2, 2, 2, 4), "refinement": 2},
    {"dim": 2 * 7, "blocks": (2, 3, 5, 7), "heads": (2, 7, 4, 14), "refinement": 11},
    {"dim": 2 * 13, "blocks": (13, 11, 7, 5), "heads": (13, 2, 26, 4), "refinement": 0},
    {"in_channels": 1, "out_channels": 1},
    {"in_channels": 6, "dual_pixel": True},
    {"in_channels": 2, "out_channels": 1, "dual_pixel": True},
]


@pytest.mark.parametrize("options", SHAPES)
def test_the_configuration_is_inferred_from_the_tensors(options: dict[str, Any]) -> None:
    config = ModelConfig(**options)
    with torch.device("meta"):
        state = Restormer(config).state_dict()
    assert infer_config(state) == config


@pytest.mark.parametrize("dual_pixel", [False, True])
def test_every_variant_is_inferred_from_the_tensors(dual_pixel: bool) -> None:
    for options in VARIANTS:
        views = {"in_channels": 6, "dual_pixel": True} if dual_pixel else {}
        config = ModelConfig(dim=48, blocks=(2, 1, 1, 3), refinement=1, **options, **views)
        with torch.device("meta"):
            state = Restormer(config).state_dict()
        assert infer_config(state) == config


@settings(max_examples=40)
@given(half=st.integers(1, 40), hundredths=st.integers(50, 700))
def test_any_expansion_is_inferred_to_the_same_network(half: int, hundredths: int) -> None:
    config = ModelConfig(dim=2 * half, blocks=(1, 1, 1, 1), heads=(1, 1, 1, 1), expansion=hundredths / 100)
    with torch.device("meta"):
        state = Restormer(config).state_dict()
        again = Restormer(infer_config(state)).state_dict()
    assert {key: value.shape for key, value in state.items()} == {key: value.shape for key, value in again.items()}
    assert len(str(infer_config(state).expansion)) <= len(str(float(config.expansion)))


def test_safetensors_without_our_header_run_the_same(tmp_path: Path) -> None:
    for number, options in enumerate(({}, {"bias": True, "norm": "bias-free"}, {"in_channels": 6, "dual_pixel": True})):
        model, path = tiny(**options), tmp_path / f"{number}.safetensors"
        save_file(model.state_dict(), path, metadata={"format": "pt"})
        loaded = load_weights(path)
        x = torch.rand(1, model.config.in_channels, 8, 16)
        with torch.no_grad():
            assert torch.equal(loaded.model(x), model(x))
        assert loaded.header == {}


HEADER: dict[str, Any] = {
    "task": "denoise",
    "recipe": {"name": "compact", "stage": [{"patch": 64}], "expected": None},
    "training": {"iterations": 3200, "psnr": 31.5, "note": "σ ≤ 50 “quoted”"},
    "licence": "Apache-2.0; trained on …",
    "odd": ["true", True, "1.0", None],
}


def test_the_header_comes_back_as_it_went_in(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_weights(path, tiny(expansion=2.0), HEADER)
    loaded = load_weights(path)
    assert loaded.header == {"format": FORMAT, "model": loaded.config.to_dict(), **HEADER}
    assert loaded.config == ModelConfig(**{**TINY, "expansion": 2.0})
    assert loaded.task == "denoise"
    assert loaded.path == path
    save_weights(tmp_path / "y.safetensors", loaded.model, loaded.header)
    assert load_weights(tmp_path / "y.safetensors").header == loaded.header
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["task"] == "denoise"  # plain for other tools
    assert json.loads(metadata["model"])["expansion"] == 2.0


@pytest.mark.parametrize("text", ["true", "null", "1.0", '"quoted"', "[1]", "{", ""])
def test_header_strings_that_look_like_json_stay_strings(tmp_path: Path, text: str) -> None:
    save_weights(tmp_path / "x.safetensors", tiny(), {"task": text, "licence": text})
    loaded = load_weights(tmp_path / "x.safetensors")
    assert loaded.header["licence"] == text
    assert loaded.task == text


def test_a_stale_header_does_not_misdescribe_the_network(tmp_path: Path) -> None:
    stale = {"format": "restormer-cli/0", "model": ModelConfig().to_dict(), "task": "denoise"}
    save_weights(tmp_path / "x.safetensors", tiny(), stale)
    assert load_weights(tmp_path / "x.safetensors").config == tiny().config


def test_the_expansion_in_the_header_wins_over_the_inferred_one(tmp_path: Path) -> None:
    save_weights(tmp_path / "x.safetensors", tiny(expansion=2.66), {})
    assert load_weights(tmp_path / "x.safetensors").config.expansion == 2.66


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_half_precision_is_stored_as_such_and_loads_as_single(tmp_path: Path, name: str) -> None:
    model, path = tiny(), tmp_path / name
    save_weights(path, model, {}, dtype=torch.float16)
    stored = load_file(path) if name == "x.safetensors" else torch.load(path, weights_only=True)["params"]
    assert {value.dtype for value in stored.values()} == {torch.float16}
    loaded = load_weights(path).model
    assert_same(tiny().half().float(), loaded)
    assert next(model.parameters()).dtype == torch.float32  # the model itself is untouched


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_floating_point_types_load_as_single(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {key: value.to(dtype) for key, value in tiny().state_dict().items()}
    torch.save({"params": state}, tmp_path / "x.pth")
    loaded = load_weights(tmp_path / "x.pth").model.state_dict()
    assert all(torch.equal(loaded[key], state[key].float()) for key in state)


def test_parameters_that_shared_memory_in_the_file_are_separate(tmp_path: Path) -> None:
    state = dict(tiny().state_dict())
    state["latent.1.attn.qkv.weight"] = state["latent.0.attn.qkv.weight"]
    torch.save({"params": state}, tmp_path / "x.pth")
    pointers = [parameter.data_ptr() for parameter in load_weights(tmp_path / "x.pth").model.parameters()]
    assert len(set(pointers)) == len(pointers)


def test_a_saved_pth_is_in_the_official_layout(tmp_path: Path) -> None:
    model = tiny()
    save_weights(tmp_path / "x.pth", model, HEADER)
    content = torch.load(tmp_path / "x.pth", weights_only=True)
    assert list(content) == ["params", "restormer_cli"]  # ours beside theirs, as JSON; others pass over it
    assert content["params"].keys() == model.state_dict().keys()
    assert all(torch.equal(content["params"][key], value) for key, value in model.state_dict().items())


TINY_JSON = ModelConfig(**TINY).to_dict()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("not JSON {", "no readable model configuration"),
        ("[1, 2]", "no readable model configuration"),
        ("null", "no readable model configuration"),
        ("3", "no readable model configuration"),
        ("[" * 100_000, "no readable model configuration"),
        ('{"dim": ' + "9" * 5000 + "}", "no readable model configuration"),
        (None, "no readable model configuration"),
        ({**TINY_JSON, "depth": 3}, "no field 'depth'"),
        ({**TINY_JSON, "dim": "6"}, "dim = '6'"),
        ({**TINY_JSON, "dim": 6.0}, "dim = 6.0"),
        ({**TINY_JSON, "blocks": [1, 1, 1, None]}, "whole numbers"),
        ({**TINY_JSON, "heads": []}, "needs four"),
        ({**TINY_JSON, "norm": "x"}, "must be one of"),
        ({**TINY_JSON, "expansion": float("nan")}, "expansion = nan"),
        ({**TINY_JSON, "expansion": 10**400}, "expansion = 1000"),
        ({**TINY_JSON, "dim": 2 * 10**30, "heads": [1, 1, 1, 1]}, "larger than any file"),
        ({**TINY_JSON, "blocks": [10**9, 1, 1, 1]}, "larger than any file"),
        ({**TINY_JSON, "refinement": 10**9}, "larger than any file"),
        ({**TINY_JSON, "in_channels": 10**18, "out_channels": 10**18}, "larger than any file"),
        ({**TINY_JSON, "in_channels": 10**30, "out_channels": 10**30}, "larger than any file"),
        ({**TINY_JSON, "dim": 4096, "heads": [1, 1, 1, 1], "expansion": 63}, "has shape"),
        ({**TINY_JSON, "blocks": [5, 1, 1, 1]}, "is missing"),
        ({**TINY_JSON, "expansion": 4.0}, "has shape"),
        ({**TINY_JSON, "concat": False}, "reduce_chan_level1"),
    ],
)
def test_a_hostile_header_is_one_user_error(tmp_path: Path, model: Any, message: str) -> None:
    path = tmp_path / "x.safetensors"
    text = model if isinstance(model, str) else json.dumps(model)
    metadata = {"format": FORMAT} | ({} if model is None else {"model": text})
    save_file(tiny().state_dict(), path, metadata=metadata)
    with pytest.raises(UserError, match=message) as error:
        load_weights(path)
    assert str(path) in one_line(error)


def test_a_header_of_any_length_is_not_taken_for_a_pickle(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_weights(path, tiny(), {"task": ""})
    length = -(path.read_bytes()[0] - 0x80) % 256  # lengthens the header until that of a pickle's first byte
    save_weights(path, tiny(), {"task": "x" * length})
    assert path.read_bytes()[0] == 0x80
    assert load_weights(path).task == "x" * length
    path.rename(tmp_path / "x.pth")  # the content decides, not the name
    assert_same(tiny(), load_weights(tmp_path / "x.pth").model)


def test_a_later_format_asks_for_an_update(tmp_path: Path) -> None:
    save_file(tiny().state_dict(), tmp_path / "x.safetensors", metadata={"format": "restormer-cli/2"})
    with pytest.raises(UserError, match=r"format restormer-cli/2.*update"):
        load_weights(tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_a_place_that_cannot_be_written_is_failed_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Failed, match="Not a directory"):
        save_weights(tmp_path / "file" / name, tiny(), {})
    with pytest.raises(Failed, match="No such file"):
        save_weights(tmp_path / "missing" / name, tiny(), {})
    (tmp_path / name).mkdir()
    with pytest.raises(Failed, match="directory"):
        save_weights(tmp_path / name, tiny(), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["file", name])


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_a_full_disk_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    save_weights(path, tiny(1), {})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(Failed, match="No space left on device"):
        save_weights(path, tiny(2), {})
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert_same(tiny(1), load_weights(path).model)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(stream: Any) -> None:
        stream.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(tmp_path / "x", interrupted)
    assert not list(tmp_path.iterdir())


def test_an_unknown_name_lists_the_bundled_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKPOINTS", tmp_path)
    with pytest.raises(UserError, match=r"nothing: no such weights file \(bundled: none\)"):
        load_weights("nothing")
    for task in ("denoise", "defocus"):
        save_weights(tmp_path / f"{task}.safetensors", tiny(), {"task": task})
    with pytest.raises(UserError, match=r"bundled: defocus, denoise"):
        load_weights("nothing")
    assert load_weights("defocus").task == "defocus"


def test_a_bundled_name_wins_over_a_folder_but_not_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bundled").mkdir()
    monkeypatch.setattr(module, "CHECKPOINTS", tmp_path / "bundled")
    monkeypatch.chdir(tmp_path)
    save_weights(tmp_path / "bundled" / "denoise.safetensors", tiny(1), {})
    (tmp_path / "denoise").mkdir()
    assert_same(tiny(1), load_weights("denoise").model)
    (tmp_path / "denoise").rmdir()
    save_weights(tmp_path / "denoise", tiny(2), {})
    assert_same(tiny(2), load_weights("denoise").model)


def test_a_folder_and_an_empty_file_and_an_impossible_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        load_weights(tmp_path)
    for name in ("x.pth", "x.safetensors"):
        (tmp_path / name).touch()
        with pytest.raises(UserError, match="is empty"):
            load_weights(tmp_path / name)
        (tmp_path / name).write_text("plain text, nothing else")
        with pytest.raises(UserError, match="x"):
            load_weights(tmp_path / name)
    with pytest.raises(UserError, match="too long"):
        load_weights("x" * 5000)
    with pytest.raises(UserError, match="no such weights file"):
        load_weights("a\0b")


def test_loading_draws_no_random_numbers_and_warns_of_nothing(tmp_path: Path) -> None:
    save_weights(tmp_path / "x.pth", tiny(), {})
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(tmp_path / "x.pth")
    assert torch.equal(torch.rand(1), expected)


def test_loading_draws_no_initial_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be overwritten, and take longer than all the rest of building a network."""
    save_weights(tmp_path / "x.pth", tiny(), {})
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", lambda *_, **__: pytest.fail("drew initial weights"))
    assert_same(tiny(), load_weights(tmp_path / "x.pth").model)


@pytest.mark.parametrize("prefix", ["net.", "model.", "generator.", "restormer.", "a.b.module."])
def test_any_prefix_that_all_keys_share_is_dropped(tmp_path: Path, prefix: str) -> None:
    state = tiny().state_dict()
    torch.save({"state_dict": {prefix + key: value for key, value in state.items()}}, tmp_path / "a.ckpt")
    assert torch.equal(load_weights(tmp_path / "a.ckpt").model.state_dict()["output.weight"], state["output.weight"])


@pytest.mark.parametrize("key", ["model_state_dict", "net", "generator"])
def test_a_state_dict_under_any_key_is_found(tmp_path: Path, key: str) -> None:
    torch.save({"epoch": 3, "optimizer": {"state": {}}, key: tiny().state_dict()}, tmp_path / "a.pth")
    assert load_weights(tmp_path / "a.pth").config.dim == 6


def test_what_training_loops_leave_beside_the_tensors_is_passed_over(tmp_path: Path) -> None:
    beside = {"epoch": np.int64(3), "best": np.float64(31.2), "args": argparse.Namespace(lr=1)}
    counted = {"total_ops": torch.zeros(1), "encoder_level1.0.total_params": torch.zeros(1)}
    torch.save({"params": {**tiny().state_dict(), **counted}, **beside}, tmp_path / "a.pth")
    assert load_weights(tmp_path / "a.pth").config.dim == 6


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 104\n", "Git LFS pointer"),
     (b"<!DOCTYPE html><html>Google Drive", "web page"), (b"\n<html>", "web page")],
)  # fmt: skip
def test_what_is_no_weights_is_called_by_its_name(tmp_path: Path, content: bytes, cause: str) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match=cause):
        load_weights(tmp_path / "a.pth")


@pytest.mark.parametrize("blocks", [(0, 2, 1, 1), (0, 0, 1, 0), (1, 0, 1, 2)])
def test_a_network_with_empty_levels_is_inferred_and_loads(tmp_path: Path, blocks: tuple[int, ...]) -> None:
    options = {"blocks": blocks, "refinement": 0, "heads": (1, 2, 4, 8), "dim": 8, "expansion": 2.0}
    model, path = tiny(**options), tmp_path / "x.safetensors"
    save_file(model.state_dict(), path)
    found = load_weights(path)
    assert found.config == model.config
    assert_same(model, found.model)


def test_a_pth_has_a_block_in_every_level_for_others_to_read(tmp_path: Path) -> None:
    model, path = tiny(blocks=(0, 2, 1, 1), refinement=0, heads=(1, 2, 4, 8), dim=8), tmp_path / "x.pth"
    save_weights(path, model, HEADER)
    found = load_weights(path)
    assert found.config.blocks == (1, 2, 1, 1)
    assert found.config.refinement == 1
    picture = torch.rand(1, 3, 16, 24)
    with torch.inference_mode():
        assert torch.equal(found.model(picture), model(picture))  # they add exact zeros


def test_weights_without_any_block_are_refused() -> None:
    with torch.device("meta"):
        state = Restormer(ModelConfig(blocks=(0, 0, 0, 0), refinement=0)).state_dict()
    with pytest.raises(ValueError, match=r"encoder_level1\.0"):
        infer_config(state)
