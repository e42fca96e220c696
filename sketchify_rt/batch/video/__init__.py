"""Converts a video into a video of sketches with the same sound, frame by frame.

    file ──demux──▶ packets ──decode──▶ luma ──engine──▶ sketches ──encode──▶ packets ──mux──▶ file
                       └──────── sound, subtitles, attachments: unchanged ──────────┘

Needs PyAV, which has FFmpeg's libraries in it. Without it, importing this package raises
BackendUnavailable.
"""

try:
    import av  # noqa: F401
except ImportError as error:
    from sketchify_rt.errors import BackendUnavailable

    raise BackendUnavailable(
        f"videos need PyAV ({error}). To fix: pip install 'sketchify-rt[video]'"
    ) from error

from sketchify_rt.batch.kinds import video_name as result_name
from sketchify_rt.batch.video.convert import Engine, convert_video

__all__ = ["Engine", "convert_video", "result_name"]
