#!/usr/bin/env python3
"""Write crates/model/tests/goldens/train: one training step of a tiny model, by torch autograd.

Needed only to regenerate: the files are committed and the tests need no Python. Packages as for make_goldens.py.

    venv/bin/python tools/oracle/make_train_fixture.py crates/model/tests/goldens/train

`model.safetensors` and `config.json` are the model before the step (F32, the published names). transformers'
DeepseekV3ForCausalLM (float32, eager) computes the forward pass; what it lacks, the sequence-wise balance loss, is
written here in torch. `step.safetensors` holds

    input_ids, targets   [B, T]  I64    B sequences of T tokens
    weights              [B, T]  F32    factor of each token's loss
    loss                 [1]     F32    sum of weight * cross-entropy
    seq_aux              [1]     F32    sum over sequences and MoE layers of (sum of the sequence's weights) * balance
    topk_idx.<l>         [B*T, K] I32   ascending
    grad.<name>                  F32    of loss + ALPHA * seq_aux
    after.<name>                 F32    the tensor after one step on grad / (sum of weights)

The step. Every matrix but embedding and head (each routed expert's matrices on their own), Muon as Moonshot's: the
momentum buffer starts as BUFFER * weight; buf = MU buf + g; u = g + MU buf; X = u / (|u|_F + 1e-7), transposed if
tall; five times X = a X + (b A + c A A) X with A = X X^T; W = (1 - LR WD) W - LR 0.2 sqrt(max(rows, columns)) X.
In float64, rounded at the end. Embedding, head and norms: torch.optim.AdamW, its first step, betas (0.9, 0.95), eps
1e-8, rate LR_ADAM, decay WD for embedding and head and 0 for norms. The selection bias stays.
"""
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from make_goldens import YARN, expert_choice, published_config, random_weights, split_experts

ALPHA, BUFFER, MU, LR, LR_ADAM, WD = 0.05, 0.01, 0.95, 0.02, 0.003, 0.1
COEFFICIENTS = (3.4445, -4.7750, 2.0315)

RECIPE = dict(
    seed=4, model_type="kimi_k2", rope_spelling="rope_scaling",
    rope=dict(rope_type="yarn", rope_theta=50000.0, beta_fast=1.0, **YARN),
    config=dict(
        vocab_size=80, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=2, n_shared_experts=1, n_routed_experts=6, num_experts_per_tok=2,
        routed_scaling_factor=2.827, kv_lora_rank=16, q_lora_rank=24, qk_rope_head_dim=8, qk_nope_head_dim=16,
        v_head_dim=16, n_group=1, topk_group=1, first_k_dense_replace=1, rms_norm_eps=1e-5,
        norm_topk_prob=True, max_position_embeddings=4096, num_nextn_predict_layers=0, bos_token_id=0, eos_token_id=1,
        tie_word_embeddings=False,
    ),
)


def balance(logits, ids, n_sequences, weights):
    """Sum over sequences of their weight times `sum_e f_e P_e` (DeepSeek-V3 report, equations 17 to 20)."""
    scores = logits.sigmoid()
    n_experts, k = scores.shape[-1], ids.shape[-1]
    share = (scores / scores.sum(-1, keepdim=True)).unflatten(0, (n_sequences, -1)).mean(1)
    chosen = F.one_hot(ids.long(), n_experts).sum(1).float().unflatten(0, (n_sequences, -1)).mean(1)
    return (weights.sum(-1) * (chosen * n_experts / k * share).sum(-1)).sum()


def muon(weight, gradient):
    weight, gradient = weight.double(), gradient.double()
    buffer = MU * (BUFFER * weight) + gradient
    x = gradient + MU * buffer
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(5):
        g = x @ x.T
        x = a * x + (b * g + c * g @ g) @ x
    x = x.T if tall else x
    return ((1 - LR * WD) * weight - LR * 0.2 * max(weight.shape) ** 0.5 * x).float()


def adamw(weight, gradient, decay):
    parameter = torch.nn.Parameter(weight.clone())
    parameter.grad = gradient.clone()
    torch.optim.AdamW([parameter], lr=LR_ADAM, betas=(0.9, 0.95), eps=1e-8, weight_decay=decay).step()
    return parameter.detach()


def main(folder):
    torch.manual_seed(RECIPE["seed"])
    config = DeepseekV3Config(**RECIPE["config"], rope_interleave=True, rope_parameters=dict(RECIPE["rope"]))
    config._attn_implementation = config._experts_implementation = "eager"
    model = DeepseekV3ForCausalLM(config).float().train()
    random_weights(model)
    state = split_experts(model.state_dict())
    ids = torch.randint(0, config.vocab_size, (2, 45))
    input_ids, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    weights = torch.tensor([1.0, 0.5, 0.0, 1.0])[torch.randint(0, 4, targets.shape)]
    chosen = {}
    for l, layer in enumerate(model.model.layers[config.first_k_dense_replace:], config.first_k_dense_replace):
        layer.mlp.gate.register_forward_hook(lambda _m, _i, out, l=l: chosen.__setitem__(l, out))
    logits = model(input_ids, use_cache=False).logits
    losses = F.cross_entropy(logits.view(-1, config.vocab_size), targets.view(-1), reduction="none")
    loss = (losses * weights.view(-1)).sum()
    step = dict(input_ids=input_ids, targets=targets, weights=weights)
    aux = 0.0
    for l, (router_logits, _weights, picked) in chosen.items():
        replay, margin = expert_choice(model.model.layers[l].mlp.gate, router_logits.detach())
        picked = picked.sort(-1)[0].to(torch.int32)
        assert torch.equal(picked, replay) and margin > 1e-4, "take another seed"
        step[f"topk_idx.{l}"] = picked
        aux = aux + balance(router_logits, picked, len(ids), weights)
    step.update(loss=loss.detach().view(1), seq_aux=aux.detach().view(1))
    (loss + ALPHA * aux).backward()
    fused = {name: p.grad for name, p in model.named_parameters()}
    fused.update({name: torch.zeros_like(b) for name, b in model.state_dict().items() if name not in fused})
    for name, gradient in split_experts(fused).items():
        weight, mean = state[name], gradient / weights.sum()
        if name.endswith("e_score_correction_bias"):
            continue
        step["grad." + name] = gradient
        if weight.dim() == 1:
            step["after." + name] = adamw(weight, mean, 0.0)
        elif "embed_tokens" in name or "lm_head" in name:
            step["after." + name] = adamw(weight, mean, WD)
        else:
            step["after." + name] = muon(weight, mean)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(published_config(RECIPE, False), indent=1) + "\n")
    save_file({n: t.contiguous() for n, t in state.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({n: t.detach().contiguous().clone() for n, t in step.items()}, folder / "step.safetensors")
    print({f.name: f.stat().st_size for f in folder.iterdir()}, "loss", loss.item(), "aux", aux.item())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
