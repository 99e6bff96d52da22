"""Tells from the name of a metric whether higher values are better."""

from __future__ import annotations

import re

# torchmetrics sets ``higher_is_better`` for these, by their usual short names
_HIGHER_WORDS = """
acc accuracy auc auroc auprc aupr ap map mrr ndcg precision recall sensitivity specificity f1 f2 fbeta dice
iou miou jaccard kappa mcc r2 psnr ssim snr sdr pesq stoi bleu rouge chrf meteor pearson spearman similarity
reward
"""
_HIGHER = frozenset(_HIGHER_WORDS.split())
_LOWER = {"loss", "error", "err", "distance", "perplexity"}
_PART = re.compile(r"(?:[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+)\d*")


def higher_is_better(name: str) -> bool:
    """Whether a name says so, such as ``val_acc``, ``ValF1``, ``mAP_50``; not ``mape``, nor ``accuracy_loss``."""
    words = {word for token in re.findall(r"[A-Za-z0-9]+", name) for word in _words(token)}
    return bool(words & _HIGHER) and not words & _LOWER


def _words(token: str) -> set[str]:
    """The parts of a name such as ``ValMeanIoU50`` and what neighbours give together, with and without digits."""
    parts = _PART.findall(token)
    joined = {"".join(parts[start:end]) for end in range(len(parts) + 1) for start in range(max(0, end - 3), end)}
    return {word.lower() for word in joined} | {word.lower().rstrip("0123456789") for word in joined}
