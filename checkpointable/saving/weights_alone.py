"""Reduces a checkpoint file to its weights, so that it takes less room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from checkpointable._errors import SaveError
from checkpointable.catalog.info import FileMetadata
from checkpointable.policy.names import HISTORY_KEY, KEY
from checkpointable.storage.files import open_file
from checkpointable.storage.format import archive, safe_load
from checkpointable.storage.format.placeholder import placeholders_in
from checkpointable.storage.format.shards import is_marked
from checkpointable.storage.staging.snapshot import Snapshot
from checkpointable.storage.store import Store

# What only a resume needs: of Lightning's checkpoint, of those of its callbacks, and of our own state.
_ONLY_TO_RESUME = {
    *("loops", "callbacks", "optimizer_states", "lr_schedulers"),
    *("current_model_state", "averaging_state"),  # of WeightAveraging; its average is the state_dict
}
_EMPTY_STATE: Mapping[str, Any] = {"ranks": (), "gradients": {}, "sums": None}


def reduce_to_weights(store: Store, path: str) -> str:
    """Replace a file by one with its weights alone, in one step; return what else to tell of it, or ``""``.

    Its weights are mapped, not read into memory. The new file is durable before the old one is gone.

    Raises:
        SaveError: If there is no room for both files at once, or it is a directory of shards.
        OSError: If the file system refuses.
        pickle.UnpicklingError: If torch cannot read the file.
    """
    if is_marked(path):
        raise SaveError("it is a directory of shards")
    with open_file(path) as file:
        whole = safe_load.load(file, path, "cpu", weights_only=True, mapped=True)
        history = archive.history_text_in(file, path)
    state = whole[KEY]
    metadata = replace(FileMetadata.from_dict(state["metadata"], path), weights_only=True, exactness=None, verdicts=())
    reduced = {name: value for name, value in whole.items() if name not in _ONLY_TO_RESUME}
    reduced[KEY] = {**state, **_EMPTY_STATE, "metadata": metadata.to_dict(), HISTORY_KEY: history}
    content = Snapshot.of(reduced)
    free = store.free_bytes()
    if free is not None and free < content.size:
        raise SaveError(f"its weights take {content.size:,} bytes, and {free:,} are free")
    store.write(content, path, overwrite=True)
    lost = sorted({it.name for _, it in placeholders_in(reduced)})
    return f" Values made by {', '.join(lost)} are placeholders in it." if lost else ""
