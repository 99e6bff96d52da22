"""Lightning's tutorial on text classification with transformers (text-transformers), on made sentences."""

import random

import lightning as L
import torch
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    DataCollatorWithPadding,
    get_linear_schedule_with_warmup,
)

from checkpointable import Checkpointing

GOOD = ["good", "great", "fine", "lovely", "superb"]
BAD = ["bad", "poor", "awful", "dull", "weak"]
WORDS = [*GOOD, *BAD, "the", "a", "film", "plot", "cast", "scene", "was", "is", "felt", "and"]


class MadeSentences(L.LightningDataModule):
    def setup(self, stage):
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
        self.tokenizer = BertTokenizerFast(vocab={token: index for index, token in enumerate(tokens)})
        choose = random.Random(0)
        texts = [" ".join(choose.choices(WORDS, k=choose.randint(4, 12))) for _ in range(400)]
        labels = [sum((word in GOOD) - (word in BAD) for word in text.split()) > 0 for text in texts]
        encoded = self.tokenizer(texts)["input_ids"]
        self.rows = [{"input_ids": ids, "label": int(label)} for ids, label in zip(encoded, labels, strict=True)]

    def train_dataloader(self):
        collate = DataCollatorWithPadding(self.tokenizer)
        return DataLoader(self.rows[:320], batch_size=32, shuffle=True, collate_fn=collate)

    def val_dataloader(self):
        return DataLoader(self.rows[320:], batch_size=32, collate_fn=DataCollatorWithPadding(self.tokenizer))


class GLUETransformer(L.LightningModule):
    def __init__(self, learning_rate=1e-3, warmup_steps=5, weight_decay=0.01):
        super().__init__()
        self.save_hyperparameters()
        config = BertConfig(
            vocab_size=len(WORDS) + 5, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
        )
        self.model = BertForSequenceClassification(config)

    def training_step(self, batch, batch_idx):
        return self.model(**batch).loss

    def validation_step(self, batch, batch_idx):
        outputs = self.model(**batch)
        self.log("val_loss", outputs.loss)
        self.log("accuracy", (outputs.logits.argmax(1) == batch["labels"]).float().mean())

    def configure_optimizers(self):
        no_decay = ["bias", "LayerNorm.weight"]
        named = list(self.model.named_parameters())
        groups = [
            {"params": [p for n, p in named if not any(nd in n for nd in no_decay)], "weight_decay": 0.01},
            {"params": [p for n, p in named if any(nd in n for nd in no_decay)], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.hparams.learning_rate, eps=1e-8)
        scheduler = get_linear_schedule_with_warmup(
            optimizer,
            num_warmup_steps=self.hparams.warmup_steps,
            num_training_steps=self.trainer.estimated_stepping_batches,
        )
        return [optimizer], [{"scheduler": scheduler, "interval": "step", "frequency": 1}]


if __name__ == "__main__":
    L.seed_everything()
    trainer = L.Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False,
        callbacks=[Checkpointing(save_interval=2, dirpath="saved", resume="auto")],
    )  # fmt: skip
    trainer.fit(GLUETransformer(), datamodule=MadeSentences())
