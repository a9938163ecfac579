"""What a new repo begins with: the `.gitattributes` that sends weights and media to LFS."""

from __future__ import annotations

from registry.names import RepoType

FIRST_COMMIT = "initial commit"
ATTRIBUTES_FILE = ".gitattributes"

_EVERYWHERE = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gguf *.gz *.h5 *.joblib *.lfs.* *.llamafile *.mlmodel *.model *.msgpack "
    "*.npy *.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar "
    "*.tar.* *.tflite *.tgz *.wasm *.xz *.zip *.zst *tfevents*"
)
_DATASETS = (
    "*.lz4 *.mds *.sam *.pcm *.raw *.aac *.flac *.mp3 *.ogg *.wav *.bmp *.gif *.png *.tiff *.jpg *.jpeg *.webp "
    "*.mp4 *.webm *.mov *.avi *.mkv"
)


def first_files(kind: RepoType) -> dict[str, bytes]:
    """Give the files of a new repo's first commit."""
    patterns = f"{_EVERYWHERE} {_DATASETS if kind == 'dataset' else ''}".split()
    lines = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in patterns)
    return {ATTRIBUTES_FILE: lines.encode()}
