#!/usr/bin/env python3
"""Write the golden checkpoints of crates/model/tests/goldens and what transformers computes from them.

Needed only to regenerate: the files are committed and the tests need no Python.

    python3 -m venv venv
    venv/bin/pip install torch==2.15.0 transformers==5.23.0 compressed-tensors==0.20.0 \
        safetensors==0.8.0 numpy==2.4.6
    venv/bin/python tools/oracle/make_goldens.py crates/model/tests/goldens [NAME ...]

Each recipe below is one tiny model in the published layout of Kimi K2. The judge is transformers'
DeepseekV3ForCausalLM: float32, CPU, eager attention, eager experts. Beside every checkpoint stands
`reference.safetensors`:

    input_ids         [B, T]  I64
    logits            [B, T, V]
    hidden.<i>        [B, T, C]   input of layer i; the last one comes after the final norm
    router_logits.<l> [B*T, E]    MoE layers only, by layer index
    topk_idx.<l>      [B*T, K]    I32, ascending, after group selection and selection bias
    greedy            [1, 48]     I64: 32 prompt ids (the head of input_ids[0]), then 16 generated

The INT4 reference uses the exact f32 product code * scale as weight, BF16 weights widened to f32.
transformers builds the two latent norms with eps 1e-6 whatever `rms_norm_eps` says.
A recipe whose expert choice or greedy token hangs on a hair is refused: a correct implementation in
another summation order must not flip it.
"""
import json
import sys
from pathlib import Path

import torch
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils.helpers import calculate_qparams
from safetensors.torch import save_file
from transformers import CompressedTensorsConfig, DeepseekV3Config, DeepseekV3ForCausalLM

GROUP = 32
CHOICE_MARGIN_MIN = 1e-4  # least gap between a chosen and a refused expert (or group)
GREEDY_MARGIN_MIN = 1e-2  # least gap between the best and the second logit while generating

YARN = dict(factor=64.0, original_max_position_embeddings=64, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0)
COMMON = dict(
    norm_topk_prob=True, max_position_embeddings=4096, num_nextn_predict_layers=0,
    bos_token_id=0, eos_token_id=1, tie_word_embeddings=False,
)

# C: hidden, R: kv_lora_rank. Every inner width of a product is a multiple of 32, the INT4/INT8 group.
RECIPES = {
    # Expert groups, two shared experts, two dense layers, plain rope with another base, eps 1e-6.
    "c": dict(
        seed=2, tokens=(2, 40), variants=("fp32", "int4"), rope=dict(rope_type="default", rope_theta=10000.0),
        rope_spelling="rope_parameters", model_type="deepseek_v3", shape_dtype=torch.int32, bias_dtype=torch.float32,
        config=dict(
            vocab_size=128, hidden_size=64, intermediate_size=64, moe_intermediate_size=32, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=4, n_shared_experts=2, n_routed_experts=16,
            num_experts_per_tok=4, routed_scaling_factor=2.5, kv_lora_rank=32, q_lora_rank=32, qk_rope_head_dim=8,
            qk_nope_head_dim=24, v_head_dim=16, n_group=4, topk_group=2, first_k_dense_replace=2, rms_norm_eps=1e-6,
        ),
    ),
    # K2 Thinking's own spelling: kimi_k2, YaRN 64 with beta 1/1; odd head, expert and vocabulary counts.
    "d": dict(
        seed=1, tokens=(2, 56), variants=("int4",), rope=dict(rope_type="yarn", rope_theta=50000.0, beta_fast=1.0, **YARN),
        rope_spelling="rope_scaling", model_type="kimi_k2", shape_dtype=torch.int64, bias_dtype=torch.float32,
        config=dict(
            vocab_size=203, hidden_size=96, intermediate_size=160, moe_intermediate_size=32, num_hidden_layers=3,
            num_attention_heads=3, num_key_value_heads=3, n_shared_experts=1, n_routed_experts=10,
            num_experts_per_tok=3, routed_scaling_factor=2.827, kv_lora_rank=32, q_lora_rank=64, qk_rope_head_dim=16,
            qk_nope_head_dim=24, v_head_dim=32, n_group=1, topk_group=1, first_k_dense_replace=1, rms_norm_eps=1e-5,
        ),
    ),
    # Kimi K2.5: text_config, `language_model.` prefix, YaRN beta 32/1, three shards that part one matrix's
    # packed codes, scales and shape, a BF16 selection bias, and tensors of a vision tower to be passed over.
    "e": dict(
        seed=0, tokens=(1, 64), variants=("int4",), rope=dict(rope_type="yarn", rope_theta=50000.0, beta_fast=32.0, **YARN),
        rope_spelling="rope_scaling", model_type="kimi_k25", shape_dtype=torch.int64, bias_dtype=torch.bfloat16,
        prefix="language_model.", shards=3,
        config=dict(
            vocab_size=96, hidden_size=64, intermediate_size=64, moe_intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, n_shared_experts=1, n_routed_experts=6,
            num_experts_per_tok=2, routed_scaling_factor=2.827, kv_lora_rank=32, q_lora_rank=32, qk_rope_head_dim=16,
            qk_nope_head_dim=16, v_head_dim=32, n_group=1, topk_group=1, first_k_dense_replace=1, rms_norm_eps=1e-5,
        ),
    ),
}

INT4_ARGS = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=GROUP, dynamic=False)
INT4_SCHEME = QuantizationScheme(targets=["Linear"], weights=INT4_ARGS)


# --- the files on disk ---------------------------------------------------------------------------------------


def published_config(recipe, int4):
    """config.json in the spelling that the recipe asks for."""
    text = {**COMMON, **recipe["config"]}
    text.update(
        architectures=["DeepseekV3ForCausalLM"],
        model_type="kimi_k2" if recipe["model_type"] == "kimi_k25" else recipe["model_type"],
        scoring_func="sigmoid", topk_method="noaux_tc", moe_layer_freq=1, hidden_act="silu", attention_bias=False,
        dtype="bfloat16" if int4 else "float32",
    )
    if recipe["rope_spelling"] == "rope_parameters":
        text["rope_parameters"] = recipe["rope"]
    else:
        rest = {k: v for k, v in recipe["rope"].items() if k not in ("rope_type", "rope_theta")}
        text["rope_theta"] = recipe["rope"]["rope_theta"]
        text["rope_scaling"] = {"type": recipe["rope"]["rope_type"], **rest}
    if int4:
        text["quantization_config"] = quantization_config()
    if recipe["model_type"] != "kimi_k25":
        return text
    return dict(
        architectures=["KimiK25ForConditionalGeneration"], model_type="kimi_k25", text_config=text,
        vision_config=dict(vt_num_hidden_layers=1), tie_word_embeddings=False,
    )


def quantization_config():
    weights = dict(
        num_bits=4, type="int", symmetric=True, strategy="group", group_size=GROUP, dynamic=False, actorder=None,
        block_structure=None, observer="minmax", observer_kwargs={},
    )
    group = dict(input_activations=None, output_activations=None, targets=["Linear"], weights=weights)
    return dict(
        quant_method="compressed-tensors", format="pack-quantized", quantization_status="compressed",
        kv_cache_scheme=None, config_groups=dict(group_0=group),
        ignore=["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"],
    )


def write_checkpoint(folder, config, tensors, recipe):
    """One file, or shards that deal the tensors out in turn (so one matrix's parts lie in different shards)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    prefix, n_shards = recipe.get("prefix", ""), recipe.get("shards", 1)
    tensors = {prefix + name: t.contiguous() for name, t in tensors.items()}
    if n_shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    if prefix:
        tensors["vision_tower.patch_embed.proj.weight"] = torch.full((4, 6), 0.5, dtype=torch.bfloat16)
    weight_map = {}
    for shard in range(n_shards):
        file = f"model-{shard + 1:05}-of-{n_shards:06}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[shard::n_shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map.update({name: file for name in part})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = dict(metadata=dict(total_size=total), weight_map=dict(sorted(weight_map.items())))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


# --- weights ---------------------------------------------------------------------------------------------------


def transformers_config(recipe):
    config = DeepseekV3Config(**COMMON, **recipe["config"], rope_interleave=True, rope_parameters=dict(recipe["rope"]))
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    return config


@torch.no_grad()
def random_weights(model):
    """Norms near 1, a selection bias that matters, projections that keep the variance."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        noise = torch.randn_like(tensor)
        if name.endswith("e_score_correction_bias"):
            tensor.copy_(0.1 * noise)
        elif "norm" in name:
            tensor.copy_(1 + 0.1 * noise)
        elif "embed_tokens" in name:
            tensor.copy_(noise)
        elif "inv_freq" not in name:
            tensor.copy_(noise / tensor.shape[-1] ** 0.5)


def split_experts(state):
    """transformers' fused expert tensors -> one tensor per expert and projection, as published."""
    out = {}
    for name, tensor in state.items():
        if name.endswith("experts.gate_up_proj"):
            stem = name.removesuffix("gate_up_proj")
            for e, both in enumerate(tensor):
                out[f"{stem}{e}.gate_proj.weight"], out[f"{stem}{e}.up_proj.weight"] = both.chunk(2)
        elif name.endswith("experts.down_proj"):
            stem = name.removesuffix("down_proj")
            out.update({f"{stem}{e}.down_proj.weight": w for e, w in enumerate(tensor)})
        else:
            out[name] = tensor
    return {name: tensor.detach().clone() for name, tensor in out.items()}


def fuse_experts(state, like):
    """The inverse of split_experts; `like` names the fused tensors and their shapes."""
    out = {}
    for name, tensor in like.items():
        n_experts = tensor.shape[0] if tensor.dim() == 3 else 0
        if name.endswith("experts.gate_up_proj"):
            stem = name.removesuffix("gate_up_proj")
            pair = lambda e: torch.cat([state[f"{stem}{e}.gate_proj.weight"], state[f"{stem}{e}.up_proj.weight"]])
            out[name] = torch.stack([pair(e) for e in range(n_experts)])
        elif name.endswith("experts.down_proj"):
            stem = name.removesuffix("down_proj")
            out[name] = torch.stack([state[f"{stem}{e}.down_proj.weight"] for e in range(n_experts)])
        else:
            out[name] = state[name]
    return out


def quantise(weight, shape_dtype):
    """compressed-tensors' own scale, codes and packing of one BF16 matrix [N, K]."""
    weight = weight.to(torch.bfloat16)
    groups = weight.unflatten(-1, (-1, GROUP))
    scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), INT4_ARGS)
    packed = PackedQuantizationCompressor.compress(
        dict(weight=weight, weight_scale=scale, weight_zero_point=zero), INT4_SCHEME
    )
    packed["weight_shape"] = packed["weight_shape"].to(shape_dtype)
    return packed


def exact_product(packed):
    """code * scale in f32, where it is exact."""
    shape = torch.Size(packed["weight_shape"].tolist())
    codes = unpack_from_int32(packed["weight_packed"], 4, shape)
    return codes.float() * packed["weight_scale"].float().repeat_interleave(GROUP, -1)


def int4_checkpoint(state, recipe):
    """(tensors as published, the f32 weights they stand for), both by per-expert name."""
    stored, meant = {}, {}
    for name, tensor in state.items():
        if ".mlp.experts." in name:
            packed = quantise(tensor, recipe["shape_dtype"])
            stem = name.removesuffix("weight")
            stored.update({stem + part: packed[part] for part in ("weight_packed", "weight_scale", "weight_shape")})
            meant[name] = exact_product(packed)
        else:
            dtype = recipe["bias_dtype"] if name.endswith("e_score_correction_bias") else torch.bfloat16
            stored[name] = tensor.to(dtype)
            meant[name] = stored[name].float()
    return stored, meant


# --- what the judge computes -----------------------------------------------------------------------------------


def gap(values, k):
    """Least distance over all rows between the k-th and the (k+1)-th largest value."""
    if k >= values.shape[-1]:
        return float("inf")
    top = values.topk(k + 1, -1)[0]
    return (top[:, k - 1] - top[:, k])[top[:, k].isfinite()].min().item()


def expert_choice(gate, logits):
    """The router's own selection rule, replayed on its logits to measure its margins: (sorted ids, margin)."""
    choice = logits.sigmoid() + gate.e_score_correction_bias
    groups = choice.unflatten(-1, (gate.num_group, -1))
    group_score = groups.topk(2, -1)[0].sum(-1)
    refused = torch.ones_like(group_score, dtype=torch.bool).scatter(1, group_score.topk(gate.topk_group, -1)[1], False)
    choice = groups.masked_fill(refused[..., None], float("-inf")).flatten(-2)
    margin = min(gap(group_score, gate.topk_group), gap(choice, gate.top_k))
    return choice.topk(gate.top_k, -1)[1].sort(-1)[0].to(torch.int32), margin


@torch.no_grad()
def reference(model, input_ids, n_dense):
    """Every recorded tensor; the expert ids are what the router module itself returned."""
    chosen = {}
    hooks = [
        layer.mlp.gate.register_forward_hook(lambda _m, _i, out, l=l: chosen.__setitem__(l, out))
        for l, layer in enumerate(model.model.layers) if l >= n_dense
    ]
    full = model(input_ids, output_hidden_states=True, use_cache=False)
    for hook in hooks:
        hook.remove()
    tensors = {"input_ids": input_ids, "logits": full.logits}
    tensors.update({f"hidden.{i}": h for i, h in enumerate(full.hidden_states)})
    for l, (router_logits, _weights, ids) in chosen.items():
        replay, margin = expert_choice(model.model.layers[l].mlp.gate, router_logits)
        ids = ids.sort(-1)[0].to(torch.int32)
        assert torch.equal(ids, replay), f"layer {l}: the router chose otherwise than its rule"
        assert margin > CHOICE_MARGIN_MIN, f"layer {l}: expert choice hangs on {margin:.1e}; take another seed"
        tensors[f"router_logits.{l}"], tensors[f"topk_idx.{l}"] = router_logits, ids
    run = model.generate(
        input_ids[:1, :32], attention_mask=torch.ones(1, 32, dtype=torch.long), max_new_tokens=16, do_sample=False,
        eos_token_id=None, pad_token_id=0, return_dict_in_generate=True, output_logits=True,
    )
    margin = gap(torch.cat(run.logits), 1)
    assert margin > GREEDY_MARGIN_MIN, f"greedy token hangs on {margin:.1e}; take another seed"
    tensors["greedy"] = run.sequences
    return {name: t.contiguous().clone() for name, t in tensors.items()}


def check_against_loader(folder, recipe, stored_as):
    """transformers' own compressed-tensors loader must see the weights that we mean, rounded to BF16."""
    config = transformers_config(recipe)
    config.quantization_config = quantization_config()
    loaded = DeepseekV3ForCausalLM.from_pretrained(
        folder, config=config, quantization_config=CompressedTensorsConfig(**quantization_config(), dequantize=True),
        dtype=torch.float32, attn_implementation="eager", experts_implementation="eager",
    )
    for name, tensor in split_experts(loaded.float().state_dict()).items():
        want = stored_as[name].bfloat16().float() if ".mlp.experts." in name else stored_as[name]
        assert torch.equal(tensor, want), f"transformers loads {name} otherwise"


def make(out, name, recipe):
    torch.manual_seed(recipe["seed"])
    config = transformers_config(recipe)
    model = DeepseekV3ForCausalLM(config).float().eval()
    random_weights(model)
    generator = torch.Generator().manual_seed(recipe["seed"] + 1)
    input_ids = torch.randint(2, config.vocab_size, recipe["tokens"], generator=generator)
    state = split_experts(model.state_dict())
    for variant in recipe["variants"]:
        int4 = variant == "int4"
        stored, meant = int4_checkpoint(state, recipe) if int4 else (state, state)
        folder = out / name / variant
        write_checkpoint(folder, published_config(recipe, int4), stored, recipe)
        if int4 and "prefix" not in recipe:
            check_against_loader(folder, recipe, meant)
        model.load_state_dict(fuse_experts(meant, model.state_dict()))
        tensors = reference(model, input_ids, config.first_k_dense_replace)
        save_file(tensors, folder / "reference.safetensors")
        n_bytes = sum(f.stat().st_size for f in folder.iterdir())
        print(f"{name}/{variant}: {n_bytes} bytes, logits std {tensors['logits'].std():.3f}, inv_freq",
              [f"{f:.3e}" for f in model.model.rotary_emb.inv_freq.tolist()])


if __name__ == "__main__":
    torch.set_num_threads(1)
    for recipe_name in sys.argv[2:] or RECIPES:
        make(Path(sys.argv[1]), recipe_name, RECIPES[recipe_name])
