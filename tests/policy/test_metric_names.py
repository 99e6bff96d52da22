"""Which names say that higher is better."""

from __future__ import annotations

import pytest

from checkpointable.policy.metric_names import higher_is_better

HIGHER = """
val_acc val/acc acc ValAccuracy valAcc top5_acc acc1 map_50 mAP val_mAP50 f1_macro val_F1Score ValF1 val_R2 r2
val_IoU mIoU ValMeanIoU psnr PSNR val.auroc BinaryAUROC recall@5 val-precision val_acc/dataloader_idx_0
"""


@pytest.mark.parametrize("name", HIGHER.split())
def test_name_with_a_word_for_higher_is_better_is_recognised(name):
    assert higher_is_better(name)


OTHER = """
val_loss mape MAPE val_mAPE smape val_SMAPE accumulated vacc mapping r1 fid lpips rmse train_loss_step
accuracy_loss diceLoss accuracy_error epoch macro heatmaps valid recalled 1 _
"""


@pytest.mark.parametrize("name", OTHER.split())
def test_name_without_such_a_word_or_with_one_for_lower_is_not(name):
    assert not higher_is_better(name)
